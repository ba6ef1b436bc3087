"""Masked language modelling: continued training of a BERT on text, or from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.errors import UserError
from finetune.task import Columns, Encoded, Examination, Scores, Usage
from finetune.tasks import next_sentence as pairs
from finetune.tasks.masked_texts import MaskedTexts, collate_masked
from finetune.tasks.masking import FREE, Masking, inner, predicting_at
from finetune.tasks.teachers import Taught

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.evaluation.options import EvaluateOptions
    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch


@dataclass(frozen=True)
class MaskedLM(Taught):
    """The words that are hidden in a text.

    What is hidden is drawn anew at every step, from a hash of seed, step and row, and is the same at every evaluation:
    it depends on no batch, process or resume. The loss is divided by the number of hidden tokens.
    """

    text: str = "text"  # the column of the text; a plain text file has this column
    block_size: int = 128  # tokens an input, special ones included
    pack: bool = True  # several texts an input, none seeing another; false: one text an input
    mask_probability: float = 0.15  # of each token (or word) to be hidden; at least one an input is
    whole_word: bool = False  # hides all tokens of a word together
    vocab_size: int = 8000  # of the byte-level BPE trained on the data where no tokenizer is given; 260 = bytes alone
    prompts: tuple[str, ...] = ()  # texts with the tokenizer's mask in them, filled for the report, before and after
    # BERT's second objective: rows are documents, and the model also says whether of two runs of sentences the second
    # follows the first or comes from another document. A pair weighs as much as its hidden tokens; BERT only.
    next_sentence: bool = False
    pseudo_perplexity: int = 0  # held-out inputs to score with every token hidden in turn: a forward pass a token

    kind: ClassVar[str] = "masked-lm"
    targets: ClassVar[str] = "units"
    best_score: ClassVar[str] = "nll"
    best_is_greatest: ClassVar[bool] = False
    draws: ClassVar[bool] = True
    examined_by: ClassVar[str] = "pseudo_perplexity"

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_probability < 1.0:
            raise UserError(f"task.mask_probability: {self.mask_probability} is not between 0 and 1; BERT has 0.15.")
        if self.next_sentence and self.pack:
            raise UserError("task.next_sentence reads one pair of sentences an input; set task.pack to false.")
        if self.pseudo_perplexity < 0:
            raise UserError(f"task.pseudo_perplexity: {self.pseudo_perplexity} is below 0; give a number of inputs.")

    def columns(self) -> Columns:
        return Columns(texts=(self.text,))

    def usage(self, family: str | None = None) -> Usage:
        said = "prediction_logits" if self.next_sentence else "logits"
        return Usage(
            does="Says what word a hidden one is.",
            auto_class="AutoModelForPreTraining" if self.next_sentence else "AutoModelForMaskedLM",
            processor="tokenizer",
            pipeline="fill-mask",
            code='inputs = tokenizer(f"It was {tokenizer.mask_token}.", return_tensors="pt")\n'
            "place = inputs.input_ids[0].tolist().index(tokenizer.mask_token_id)\n"
            f"print(tokenizer.decode(model(**inputs).{said}[0, place].topk(5).indices))",
        )

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> PreTrainedTokenizerBase:
        from finetune.loading import load_tokenizer, train_masked_tokenizer

        if model.path is None and model.tokenizer is None:
            processor: PreTrainedTokenizerBase = train_masked_tokenizer(texts(), vocab_size=self.vocab_size)
        else:
            processor = load_tokenizer(model)
        if processor.mask_token_id is None:
            raise UserError(
                "model.path: this tokenizer has no mask token, so nothing can be hidden; task causal-lm is for models "
                "like GPT-2."
            )
        for prompt in self.prompts:
            if processor.mask_token_id not in processor(prompt)["input_ids"]:
                raise UserError(f'task.prompts: "{prompt}" has nothing to fill; write {processor.mask_token} into it.')
        return processor

    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, on_long: str) -> Encoded:
        if self.next_sentence:
            return pairs.SentencePairs(processor, self.text, self.block_size, self.whole_word, on_long).encode(rows)
        return MaskedTexts(processor, self.text, self.block_size, self.pack, self.whole_word, on_long).encode(rows)

    def shown_target(self, example: dict[str, Any], processor: PreTrainedTokenizerBase) -> str:
        units = len({unit for unit in example["units"] if unit != FREE})
        kind = "words" if self.whole_word else "tokens"
        after = ("", "; the second follows", "; the second is of another document")[example.get("next", -1) + 1]
        return f"{self.mask_probability:.0%} of {units} {kind}, others at every step; special tokens never{after}"

    def collator(self, processor: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Batch]:
        hidden = {"mask_id": processor.mask_token_id, "vocabulary": len(processor)}
        return partial(collate_masked, pad_id=processor.pad_token_id or 0, pack=self.pack, hidden=hidden)

    def load_model(self, model: ModelOptions, processor: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, list[str]]:
        from transformers import AutoModelForMaskedLM

        from finetune.loading import load_config, load_pretrained, set_padding

        scratch = {"vocab_size": len(processor), "pad_token_id": processor.pad_token_id}
        config = load_config(model, **({} if model.path else scratch))
        kind = pairs.load_kind(model) if self.next_sentence else AutoModelForMaskedLM
        network, new = load_pretrained(model, kind, config)
        set_padding(network, processor)
        return network, new

    def probe(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase) -> None:
        """Compare a packed block of two texts with the two alone; UserError when they differ."""
        if not self.pack:
            return
        kind = model.config.model_type
        if not {"position_ids", "attention_mask"} <= set(signature(inner(model).base_model.forward).parameters):
            raise UserError(f"task.pack: {kind} takes no positions or no mask; set task.pack to false.")
        try:
            gap = packing_gap(self, model)
        except (RuntimeError, ValueError) as error:  # DeBERTa's masks are of another shape
            raise UserError(
                f"task.pack: {kind} takes no mask of texts ({str(error).splitlines()[0]}). Set task.pack to false."
            ) from None
        if not gap < 1e-4:
            raise UserError(
                f"task.pack: in a packed block this {kind} lets one text see another "
                f"(logits differ by {gap:.1e} of their scale). Set task.pack to false."
            )

    def _masked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (ids with tokens hidden, targets)."""
        mask_id, vocabulary = batch["hidden"].tolist()
        return Masking(self.mask_probability, mask_id, vocabulary)(batch)

    def weight(self, batch: Batch) -> Tensor:
        return self.row_weights(batch).sum()

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        from torch.nn import functional as F

        ids, labels = self._masked(batch)
        places = labels != -100
        logits, outputs = self.predicted(model, batch, ids, places)
        total = F.cross_entropy(logits, labels[places], reduction="sum")
        if self.next_sentence:  # the sum of BERT's two means, where pairs have as many hidden tokens
            total = total + (places.sum(dim=1) * pairs.next_losses(outputs, batch)).sum()
        return total, outputs

    def divergence(self, one: Any, other: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
        return pairs.told_apart(one, other, self._masked(batch)[1] != -100, temperature)

    def row_weights(self, batch: Batch) -> Tensor:
        return (self._masked(batch)[1] != -100).sum(dim=1)

    def read_places(self, batch: Batch) -> Tensor:
        return batch["units"] != FREE

    def predicted(self, model: PreTrainedModel, batch: Batch, ids: Tensor, places: Tensor) -> tuple[Tensor, Any]:
        """Return (fp32 logits at the places, shape (places, vocabulary); the outputs)."""
        with predicting_at(model, places):
            outputs = self._forward(model, batch, ids)
        return pairs.said_at(outputs, places), outputs

    def _forward(self, model: PreTrainedModel, batch: Batch, ids: Tensor) -> Any:
        from finetune.loading import first_position
        from finetune.training.batching import block_mask

        if not self.pack:
            types = {name: batch[name] for name in ("token_type_ids",) if name in batch}
            return model(input_ids=ids, attention_mask=batch["attention_mask"], **types)
        network = inner(model)
        attention = network.config._attn_implementation
        if attention not in ("sdpa", "eager"):
            raise UserError(
                f"model.attn_implementation: {attention} knows no mask of texts; use sdpa or task.pack false."
            )
        positions = batch["position_ids"]
        mask = block_mask(positions, attention, network.dtype)
        return model(input_ids=ids, attention_mask=mask, position_ids=positions + first_position(network.config))

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return what is said of the first token that can be hidden, with nothing hidden, and of the pair."""
        import torch

        outputs = self._forward(model, batch, batch["input_ids"])
        first = (batch["units"] != FREE).int().argmax(dim=1)
        logits = pairs.said_of_tokens(outputs)[range(len(first)), first].float()
        return torch.cat((logits, outputs.seq_relationship_logits.float()), dim=1) if self.next_sentence else logits

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional as F

        ids, labels = self._masked(batch)
        logits, outputs = self.predicted(model, batch, ids, places := labels != -100)
        cost = torch.zeros(labels.shape, dtype=torch.float64, device=labels.device)
        cost[places] = F.cross_entropy(logits, labels[places], reduction="none").double()
        said = torch.full_like(labels, -100)
        said[places] = logits.argmax(dim=1)
        # 0 is what shorter batches are filled with: the ids are counted from 1
        return {
            "nll": cost.sum(dim=1),
            "tokens": places.sum(dim=1),
            "right": ((said == labels) & places).sum(dim=1),
            "hidden": (labels + 1).clamp(min=0),
            **(pairs.next_answers(outputs, batch) if self.next_sentence else {}),
        }

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        from finetune.evaluation.masked import masked_scores

        words = masked_scores(answers["nll"], answers["right"], answers["tokens"], resamples)
        return words | pairs.next_scores(answers, resamples) if self.next_sentence else words

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        from datasets import Dataset as Table

        tokens = answers["tokens"].astype(int)
        shown: dict[str, Any] = pairs.next_told(answers, inputs) if self.next_sentence else {}
        if not (self.next_sentence or self.pack):
            shown = {"text": [rows[number][self.text] for number in inputs["row"]]}
        return Table.from_dict(
            {
                "row_id": list(inputs["row_id"]),
                **shown,
                "tokens": tokens,
                "right": answers["right"].astype(int),
                "nll": answers["nll"],
                "nll_per_token": answers["nll"] / tokens.clip(min=1),
            }
        )

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: PreTrainedTokenizerBase,
        resamples: int,
    ) -> dict[str, Scores]:
        from finetune.evaluation.masked import unigram_masked

        hidden: Iterator[np.ndarray] = (row.astype(int) - 1 for row in answers["hidden"])
        words = {"unigram": unigram_masked(_words(inputs["train"]), hidden, answers, len(processor), resamples)}
        return words | pairs.next_rivals(inputs, answers, resamples) if self.next_sentence else words

    def sample(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase) -> list[str]:
        from finetune.tasks.pseudo_likelihood import filled

        return [filled(model, processor, prompt) for prompt in self.prompts]

    def examine(
        self,
        model: PreTrainedModel,
        inputs: dict[str, Dataset],
        processor: PreTrainedTokenizerBase,
        options: EvaluateOptions,
    ) -> Examination:
        from finetune.tasks.pseudo_likelihood import examine_masked

        return examine_masked(self, model, inputs, processor, options) if self.pseudo_perplexity else Examination()


def packing_gap(task: MaskedLM, model: PreTrainedModel) -> float:
    """Return the largest difference between logits of packed and of separate texts, relative to their scale."""
    import torch

    generator = torch.Generator().manual_seed(0)
    size = max(1, min(12, task.block_size // 2))
    ids = torch.randint(0, model.config.get_text_config().vocab_size, (2, size), generator=generator).to(model.device)
    positions = torch.arange(size, device=model.device).repeat(2, 1)
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        apart = task._forward(model, {"position_ids": positions}, ids).logits
        packed = task._forward(model, {"position_ids": positions.view(1, -1)}, ids.view(1, -1)).logits
    model.train(was_training)
    return float((packed.view_as(apart) - apart).abs().max() / apart.abs().max().clamp(min=1e-6))


def _words(inputs: Dataset) -> Iterator[np.ndarray]:
    """Yield the ids of each input; special ones are -1."""
    import numpy as np

    table = inputs.with_format("numpy")
    for ids, units in zip(table["input_ids"], table["units"], strict=True):
        yield np.where(units == FREE, -1, ids).astype(np.int64)
