"""Text autoencoding: a sentence as a point of a latent space, and sentences from its points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from finetune.errors import UserError
from finetune.task import Columns, Encoded, Examination, Scores, Task, Usage
from finetune.tasks.blocks import encode_documents
from finetune.tasks.two_tokenizers import decoder_tokenizer, load_tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.evaluation.options import EvaluateOptions
    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch, Processor

NOISE, WORDS = 0, 1  # streams of a row's random numbers: the draw of its latent, the words that are dropped


@dataclass(frozen=True)
class TextVAETask(Task):
    """A latent for every text. Losses are nats a text, summed over its tokens and its end.

    The weight of the divergence is a function of the share of training that is done, and free bits are counted a row,
    so that neither batches nor processes nor a resume change the loss.
    """

    text: str = "text"  # the column of the text; a plain text file has this column
    max_length: int = 64  # tokens, the end of the text included
    vocab_size: int = 4000  # of the byte-level BPE trained on the data where no tokenizer is given; 257 = bytes alone
    beta: float = 1.0  # the weight of the divergence in the end; 0: a plain autoencoder
    kl_warmup: float = 0.5  # share of training (of each cycle, if cyclical) in which that weight grows from 0
    kl_schedule: Literal["linear", "cyclical"] = "linear"
    cycles: int = 4  # of a cyclical schedule
    free_bits: float = 6.0  # nats a text that the divergence may have for nothing, shared out over the dimensions
    word_dropout: float = 0.3  # share of the words that the decoder reads as blanks, so that it needs the latent
    sample_tokens: int = 40  # at most, of a sentence that is written
    temperature: float = 0.7  # of sentences from the prior; 0: the likeliest word each time
    between: tuple[str, ...] = ()  # two texts between which the report walks; held-out ones when left out

    kind: ClassVar[str] = "text-vae"
    best_score: ClassVar[str] = "nelbo"
    best_is_greatest: ClassVar[bool] = False
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, least, most in (
            ("word_dropout", 0.0, 0.95), ("kl_warmup", 0.0, 1.0), ("beta", 0.0, 1e6), ("free_bits", 0.0, 1e6),
            ("temperature", 0.0, 100.0), ("cycles", 1, 10_000), ("max_length", 2, 10**6), ("sample_tokens", 1, 10**6),
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise UserError(f"task.{name}: {getattr(self, name)} is not between {least:g} and {most:g}.")
        if len(self.between) not in (0, 2):
            raise UserError(f"task.between: give two texts, or none; {len(self.between)} are given.")

    def columns(self) -> Columns:
        return Columns(texts=(self.text,))

    def resolve(self, splits: dict[str, Dataset]) -> TextVAETask:
        held = next((splits[name] for name in ("test", "validation", "train") if name in splits), None)
        if self.between or held is None or len(held) < 2:
            return self
        return replace(self, between=tuple(str(text) for text in held[:2][self.text]))

    def usage(self, family: str | None = None) -> Usage:
        return Usage(
            does="A variational autoencoder of texts: a point of a latent space for a sentence, and back.",
            processor="tokenizer",
            pipeline="text-generation",
            code="latents = torch.randn(4, model.config.latent_dim)\n"
            f"for ids in model.write(latents, {self.sample_tokens}):\n"
            "    print(tokenizer.decode(ids, skip_special_tokens=True))",
        )

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> Processor:
        from finetune.loading import load_tokenizer, train_tokenizer

        two = load_tokenizers(model)
        if two is not None:
            return two
        if model.path is None and model.tokenizer is None:
            return train_tokenizer(texts(), vocab_size=self.vocab_size)
        return load_tokenizer(model)

    def encode(self, rows: Dataset, processor: Processor, on_long: str) -> Encoded:
        words = decoder_tokenizer(processor)
        return encode_documents(rows, words, self.text, self.max_length, False, on_long, "task.max_length")

    def shown_target(self, example: dict[str, Any], processor: Processor) -> str:
        return str(decoder_tokenizer(processor).decode(example["labels"]))

    def collator(self, processor: Processor) -> Callable[[list[dict[str, Any]]], Batch]:
        from finetune.tasks.text_latents import collate

        return partial(collate, processor=processor)

    def load_model(self, model: ModelOptions, processor: Processor) -> tuple[PreTrainedModel, list[str]]:
        from finetune.tasks.text_vae_loading import load_text_vae

        return load_text_vae(model, processor, self.max_length)

    def weight(self, batch: Batch) -> Tensor:
        import torch

        return torch.tensor(len(batch["input_ids"]))

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        from finetune.models.latent import kl_weight, with_free_bits
        from finetune.models.noise import uniform

        dropped = uniform(batch["keys"], batch["input_ids"].shape[1], WORDS) < self.word_dropout
        dropped[:, 0] = False  # the token that opens a text is no word
        outputs = self._forward(model, batch, dropped=dropped if self.word_dropout else None)
        weight = kl_weight(batch["progress"], self.beta, self.kl_warmup, self.kl_schedule, self.cycles)
        cost = outputs.reconstruction + weight * with_free_bits(outputs.kl, self.free_bits)
        return cost.sum(), outputs

    def _forward(self, model: PreTrainedModel, batch: Batch, dropped: Tensor | None = None) -> Any:
        from finetune.models.noise import normal

        kept = ("input_ids", "encoder_input_ids", "encoder_attention_mask")
        given = {name: batch[name] for name in kept if name in batch}
        if "keys" in batch:
            given["noise"] = normal(batch["keys"], _latent_dim(model), NOISE)
        return model(**given, targets=batch["labels"], dropped=dropped)

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        import torch

        outputs = self._forward(model, batch)
        last = (batch["labels"] != -100).sum(dim=1) - 1
        said = outputs.logits[range(len(last)), last]
        return torch.cat((outputs.mean, outputs.log_variance, said), dim=1).float()

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        outputs = self._forward(model, batch)
        return {
            "reconstruction": outputs.reconstruction.double(),
            "kl": outputs.kl.double(),
            "mean": outputs.mean.float(),
            "log_variance": outputs.log_variance.float(),
            "tokens": (batch["labels"] != -100).sum(dim=1),
        }

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        from finetune.evaluation.autoencoding import text_bound_scores

        return text_bound_scores(
            answers["reconstruction"], answers["kl"], answers["mean"], answers["tokens"], resamples
        )

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        from datasets import Dataset as Table

        bound = answers["reconstruction"] + answers["kl"].sum(axis=1)
        tokens = answers["tokens"].astype(int)
        return Table.from_dict(
            {
                "row_id": list(inputs["row_id"]),
                "text": [rows[number][self.text] for number in inputs["row"]],
                "tokens": tokens,
                "nll": bound,
                "nll_per_token": bound / tokens.clip(min=1),
                "kl": answers["kl"].sum(axis=1),
                "latent": list(answers["mean"]),
            }
        )

    def baselines(
        self,
        rows: dict[str, Dataset],
        inputs: dict[str, Dataset],
        answers: Answers,
        processor: Processor,
        resamples: int,
    ) -> dict[str, Scores]:
        from finetune.evaluation.autoencoding import unigram_texts

        targets = {name: split.with_format("numpy")["labels"][:] for name, split in inputs.items()}
        bound = answers["reconstruction"] + answers["kl"].sum(axis=1)
        vocabulary = len(decoder_tokenizer(processor))
        return {"unigram": unigram_texts(targets["train"], targets["test"], bound, vocabulary, resamples)}

    def sample(self, model: PreTrainedModel, processor: Processor) -> list[str]:
        from finetune.tasks.text_latents import Writer

        writer = Writer(self, model, processor)
        found = ["from the prior\n" + "\n".join(writer.from_prior(8, seed=0))]
        if self.between:
            found.append("between two sentences\n" + "\n".join(writer.walk(self.between, steps=7)))
        return found

    def examine(
        self, model: PreTrainedModel, inputs: dict[str, Dataset], processor: Processor, options: EvaluateOptions
    ) -> Examination:
        from finetune.tasks.text_latents import Writer
        from finetune.tasks.text_vae_examination import examine_text_vae

        return examine_text_vae(Writer(self, model, processor), inputs, options)

    def generate(self, model: PreTrainedModel, processor: Processor, count: int, seed: int) -> list[str]:
        from finetune.tasks.text_latents import Writer

        return Writer(self, model, processor).from_prior(count, seed)

    def interpolate(self, model: PreTrainedModel, processor: Processor, lines: int, steps: int, seed: int) -> list[str]:
        from finetune.tasks.text_latents import Writer

        return Writer(self, model, processor).between_draws(lines, steps, seed)


def _latent_dim(model: Any) -> int:
    from accelerate.utils import extract_model_from_parallel

    return int(extract_model_from_parallel(model).config.latent_dim)
