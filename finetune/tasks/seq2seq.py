"""Texts from texts: summaries, translations, anything with a source and a target."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.errors import UserError
from finetune.objectives.consistency import apart
from finetune.task import Columns, Encoded, Scores, Usage
from finetune.tasks.teachers import Taught

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch, Processor


@dataclass(frozen=True)
class Seq2Seq(Taught):
    """A text for a text. Losses are nats a token of the target, its end included.

    The decoder reads the target shifted by the model's own rule; padding is told by length, so the end is learned where
    it is the padding token too.
    """

    source: str = "source"  # the column of the text that is read
    target: str = "target"  # the column of the text that is to be written
    prefix: str = ""  # put before every source, as T5 has it: "summarize: "
    max_source_length: int = 256  # tokens, prefix and special ones included
    max_target_length: int = 64  # tokens, the end included
    vocab_size: int = 8000  # of the byte-level BPE trained on both columns where no tokenizer is given
    label_smoothing: float = 0.0  # share of the target that goes to all tokens alike, in training alone
    # How held-out texts are written: options of transformers' GenerationConfig. Left out: the likeliest token each
    # time, at most max_target_length of them.
    generation: dict[str, Any] = field(default_factory=dict)
    # sacreBLEU's tokenizer, and what a word is for ROUGE; read off the script of the targets when left out.
    words: Literal["13a", "intl", "zh", "char"] | None = None

    kind: ClassVar[str] = "seq2seq"
    best_score: ClassVar[str] = "nll"
    best_is_greatest: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, least, most in (
            ("max_source_length", 2, 10**6), ("max_target_length", 2, 10**6), ("label_smoothing", 0.0, 0.9),
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise UserError(f"task.{name}: {getattr(self, name)} is not between {least:g} and {most:g}.")
        if self.source == self.target:
            raise UserError(f"task.target: {self.target} is the source too; name the column of what is to be written.")

    def columns(self) -> Columns:
        return Columns(texts=(self.source,), target=self.target)

    def resolve(self, splits: dict[str, Dataset]) -> Seq2Seq:
        from finetune.evaluation.words import cut_for
        from finetune.tasks.writing import check_options

        check_options(self.generation, "task.generation.", sampling=False)
        held = next((splits[name] for name in ("train", "validation", "test") if name in splits), None)
        if self.words is not None or held is None:
            return self
        return replace(self, words=cut_for(held[self.target]))

    def described(self) -> str:
        kinds = {"zh": "Chinese", "char": "of a script without spaces, so a word is a character"}
        return f"task: {self.target!r} is {kinds[self.words]}." if self.words in kinds else ""

    def usage(self, family: str | None = None) -> Usage:
        asked = ", ".join(f"{name}={value!r}" for name, value in self.writing.items())
        two = family == "encoder-decoder"
        reader = "reader" if two else "tokenizer"
        lines = [
            *(['reader = AutoTokenizer.from_pretrained(tokenizer.name_or_path, subfolder="encoder_tokenizer")'] * two),
            f'inputs = {reader}({self.prefix + "A text to read."!r}, return_tensors="pt", return_token_type_ids=False)',
            f"written = model.generate(**inputs, {asked})",
            "print(tokenizer.decode(written[0], skip_special_tokens=True))",
        ]
        return Usage(
            does="Writes a text for a text.",
            auto_class="AutoModelForSeq2SeqLM",
            processor="tokenizer",
            code="\n".join(lines),
        )

    @property
    def writing(self) -> dict[str, Any]:
        """The options of GenerationConfig under which held-out texts are written."""
        from finetune.tasks.writing import PLAIN

        return {**PLAIN, "max_new_tokens": self.max_target_length, **self.generation}

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> Processor:
        from finetune.tasks.seq2seq_loading import load_seq2seq_tokenizer

        return load_seq2seq_tokenizer(self, model, texts)

    def encode(self, rows: Dataset, processor: Processor, on_long: str) -> Encoded:
        from finetune.tasks.seq2seq_inputs import encode_pairs

        return encode_pairs(self, rows, processor, on_long)

    def shown_input(self, example: dict[str, Any], processor: Processor) -> str:
        from finetune.tasks.two_tokenizers import encoder_tokenizer

        return " ".join(encoder_tokenizer(processor).convert_ids_to_tokens(example["input_ids"]))

    def shown_target(self, example: dict[str, Any], processor: Processor) -> str:
        from finetune.tasks.two_tokenizers import decoder_tokenizer

        return " ".join(decoder_tokenizer(processor).convert_ids_to_tokens(example["labels"]))

    def collator(self, processor: Processor) -> Callable[[list[dict[str, Any]]], Batch]:
        from finetune.tasks.seq2seq_inputs import collate
        from finetune.tasks.two_tokenizers import encoder_tokenizer

        return partial(collate, pad_id=encoder_tokenizer(processor).pad_token_id)

    def load_model(self, model: ModelOptions, processor: Processor) -> tuple[PreTrainedModel, list[str]]:
        from finetune.tasks.seq2seq_loading import load_seq2seq

        network, new = load_seq2seq(model, processor)
        settings: Any = network.generation_config  # saved with the model, which then writes elsewhere as here
        settings.update(**self.writing, max_length=None)
        return network, new

    def weight(self, batch: Batch) -> Tensor:
        from finetune.training.batching import IGNORED

        return (batch["labels"] != IGNORED).sum()

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        outputs = _forward(model, batch)
        return _token_losses(outputs.logits, batch["labels"], self.label_smoothing).sum(), outputs

    def divergence(self, one: Any, other: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
        return apart(one.logits, other.logits, batch["labels"], temperature=temperature)

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        from finetune.training.batching import IGNORED

        last = (batch["labels"] != IGNORED).sum(dim=1) - 1
        return _forward(model, batch).logits[range(len(last)), last].float()

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        if "labels" not in batch:
            return {}
        losses = _token_losses(_forward(model, batch).logits, batch["labels"])
        return {"nll": losses.sum(dim=1).double(), "tokens": (batch["labels"] != -100).sum(dim=1)}

    def write(self, model: PreTrainedModel, processor: Processor, batch: Batch) -> dict[str, Tensor]:
        from finetune.tasks.two_tokenizers import decoder_tokenizer
        from finetune.tasks.writing import as_bytes, written

        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        texts = written(model, decoder_tokenizer(processor), given, self.writing)
        return {"written": as_bytes([text.strip() for text in texts])}

    def reply(
        self, model: PreTrainedModel, processor: Processor, rows: Dataset, options: dict[str, Any], size: int
    ) -> list[str]:
        from finetune.tasks.two_tokenizers import decoder_tokenizer
        from finetune.tasks.writing import written

        inputs = replace(self, target="").encode(rows, processor, "error").inputs
        collate, texts = self.collator(processor), [""] * len(inputs)
        order = sorted(range(len(inputs)), key=inputs["length"].__getitem__)  # texts of like length, for little padding
        for start in range(0, len(order), size):
            part = order[start : start + size]
            batch = collate([inputs[place] for place in part])
            given = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
            found = written(model, decoder_tokenizer(processor), given, {**self.writing, **options})
            for place, text in zip(part, found, strict=True):
                texts[place] = text.strip()
        return texts

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        import numpy as np

        from finetune.evaluation.generation import generation_scores
        from finetune.evaluation.language import language_scores
        from finetune.tasks.writing import as_texts

        text_bytes = np.asarray(inputs.with_format("numpy")["bytes"][:])
        scores = language_scores(answers["nll"], answers["tokens"], text_bytes, resamples)
        if "written" not in answers:
            return scores
        texts = as_texts(answers["written"])
        references, sources = (inputs[name][: len(texts)] for name in ("target_text", "source_text"))
        return generation_scores(texts, references, sources, self._words, resamples) | scores

    @property
    def _words(self) -> Literal["13a", "intl", "zh", "char"]:
        return self.words or "13a"

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        from datasets import Dataset as Table

        from finetune.tasks.writing import as_texts

        table: dict[str, Any] = {"row_id": list(inputs["row_id"]), "source": list(inputs["source_text"])}
        if "written" in answers:  # of the first rows alone, where there are more than evaluate.generated
            texts: list[str | None] = [*as_texts(answers["written"])]
            table["generated"] = texts + [None] * (len(inputs) - len(texts))
        if "target_text" in inputs.column_names:
            table["target"] = list(inputs["target_text"])
        if "nll" in answers:
            tokens = answers["tokens"].astype(int)
            table |= {"tokens": tokens, "nll": answers["nll"], "nll_per_token": answers["nll"] / tokens.clip(min=1)}
        return Table.from_dict(table)

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: Processor,
        resamples: int,
    ) -> dict[str, Scores]:
        from finetune.evaluation.generation import generation_rivals
        from finetune.evaluation.leading import sentences_of, usual_count
        from finetune.tasks.writing import as_texts

        if "written" not in answers:
            return {}
        texts = as_texts(answers["written"])
        held = inputs["test"][: len(texts)]
        first = usual_count(inputs["train"]["target_text"])  # as many sentences as a target usually has
        lead = ["".join(sentences_of(source)[:first]).strip() for source in held["source_text"]]
        rivals = {"copy": held["source_text"], **({"lead": lead} if lead != held["source_text"] else {})}
        return generation_rivals(rivals, texts, held["target_text"], self._words, resamples)


def _forward(model: PreTrainedModel, batch: Batch) -> Any:
    from accelerate.utils import extract_model_from_parallel

    inner: Any = extract_model_from_parallel(model)
    return model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        # Padding after a target needs no mask: the decoder looks back alone.
        decoder_input_ids=inner.prepare_decoder_input_ids_from_labels(labels=batch["labels"]),
        use_cache=False,
    )


def _token_losses(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross entropy of every target in nats, 0 where there is none; shape (batch, length)."""
    from torch.nn import functional as F

    flat = F.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=-100, label_smoothing=smoothing
    )
    return flat.view_as(labels)
