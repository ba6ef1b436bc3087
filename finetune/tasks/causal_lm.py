"""Causal language modelling: continued training on text, or from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from finetune.errors import UserError
from finetune.objectives.consistency import apart
from finetune.task import Columns, Encoded, Scores, Usage
from finetune.tasks.blocks import encode_documents
from finetune.tasks.lengths import AS_TEXT
from finetune.tasks.teachers import Taught

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.loading import ModelOptions
    from finetune.task import Answers, Batch

TOGETHER = 16  # texts that are drawn at once


@dataclass(frozen=True)
class CausalLM(Taught):
    """The next token of a text.

    `labels` are next-token targets, already shifted: labels[t] is the token that must follow input_ids[t], so a block
    of 64 inputs has 64 targets, and no head's own way of shifting and averaging is in play.
    """

    text: str = "text"  # the column of the text; a plain text file has this column
    block_size: int = 128  # tokens an input, each with its target
    pack: bool = True  # documents end to end in full blocks, none seeing another; false: one text an input
    vocab_size: int = 8000  # of the byte-level BPE trained on the data where no tokenizer is given; 257 = bytes alone
    prompts: tuple[str, ...] = ("",)  # continued for the report, before and after
    sample_tokens: int = 120  # new tokens a prompt

    kind: ClassVar[str] = "causal-lm"
    best_score: ClassVar[str] = "nll"
    best_is_greatest: ClassVar[bool] = False

    def columns(self) -> Columns:
        return Columns(texts=(self.text,))

    def resolve(self, splits: dict[str, Dataset]) -> CausalLM:
        if self.block_size < 2:
            raise UserError(f"task.block_size: {self.block_size} is too short; give at least 2 tokens.")
        return self

    def usage(self, family: str | None = None) -> Usage:
        return Usage(
            does="Goes on with a text.",
            auto_class="AutoModelForCausalLM",
            processor="tokenizer",
            pipeline="text-generation",
            code='inputs = tokenizer("Once", return_tensors="pt")\n'
            "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))",
        )

    def load_processor(self, model: ModelOptions, texts: Callable[[], Any]) -> PreTrainedTokenizerBase:
        from finetune.loading import load_tokenizer, train_tokenizer

        if model.path is None and model.tokenizer is None:
            return train_tokenizer(texts(), vocab_size=self.vocab_size)
        return load_tokenizer(model)

    def encode(self, rows: Dataset, processor: PreTrainedTokenizerBase, on_long: str) -> Encoded:
        return encode_documents(rows, processor, self.text, self.block_size, self.pack, on_long)

    def shown_target(self, example: dict[str, Any], processor: PreTrainedTokenizerBase) -> str:
        learned = [number for number in example["labels"] if number != -100]
        return f"{len(learned)} targets: " + " ".join(processor.convert_ids_to_tokens(learned))

    def collator(self, processor: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Batch]:
        return partial(_collate, pad_id=processor.pad_token_id)

    def load_model(self, model: ModelOptions, processor: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, list[str]]:
        from transformers import AutoModelForCausalLM

        from finetune.loading import load_config, load_pretrained, set_padding

        scratch = {
            "vocab_size": len(processor),
            "bos_token_id": processor.bos_token_id,
            "eos_token_id": processor.eos_token_id,
            "pad_token_id": processor.pad_token_id,
        }
        config = load_config(model, **({} if model.path else scratch))
        network, new = load_pretrained(model, AutoModelForCausalLM, config)
        set_padding(network, processor)
        return network, new

    def probe(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase) -> None:
        """Compare a packed block of two documents with the two alone; UserError when they differ."""
        if not self.pack:
            return
        gap = packing_gap(self, model)
        if not gap < 1e-4:
            raise UserError(
                f"task.pack: in a packed block this {model.config.model_type} lets one document see another "
                f"(logits differ by {gap:.1e} of their scale). Set task.pack to false."
            )

    def weight(self, batch: Batch) -> Tensor:
        from finetune.training.batching import IGNORED

        return (batch["labels"] != IGNORED).sum()

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Any]:
        outputs = self._forward(model, batch)
        return _token_losses(outputs.logits, batch["labels"]).sum(), outputs

    def divergence(self, one: Any, other: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
        return apart(one.logits, other.logits, batch["labels"], temperature=temperature)

    def _forward(self, model: PreTrainedModel, batch: Batch) -> Any:
        from accelerate.utils import extract_model_from_parallel

        from finetune.training.batching import block_causal_mask

        network = extract_model_from_parallel(model)
        attention = network.config._attn_implementation
        if self.pack and attention not in ("sdpa", "eager"):
            raise UserError(
                f"model.attn_implementation: {attention} knows no mask of documents; use sdpa or task.pack false."
            )
        mask = block_causal_mask(batch["position_ids"], attention, network.dtype)  # the configuration's may be a word
        # Right padding under a causal mask touches no real token, so one document a row needs no mask at all.
        masked = {} if mask is None else {"attention_mask": mask}
        return model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False, **masked)

    def logits(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        from finetune.training.batching import IGNORED

        logits = self._forward(model, batch).logits
        targets = batch["labels"] != IGNORED
        last = targets.shape[1] - 1 - targets.flip(1).int().argmax(dim=1)  # the last position that has a target
        return logits[range(len(logits)), last].float()

    def answer(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        losses = _token_losses(self._forward(model, batch).logits, batch["labels"])
        return {"nll": losses.sum(dim=1).double(), "tokens": (batch["labels"] != -100).sum(dim=1)}

    def score(self, answers: Answers, inputs: Dataset, resamples: int = 0) -> Scores:
        import numpy as np

        from finetune.evaluation.language import language_scores

        text_bytes = np.asarray(inputs.with_format("numpy")["bytes"][:])
        return language_scores(answers["nll"], answers["tokens"], text_bytes, resamples)

    def predictions(self, answers: Answers, inputs: Dataset, rows: Dataset) -> Dataset:
        from datasets import Dataset as Table

        tokens = answers["tokens"].astype(int)
        return Table.from_dict(
            {
                "row_id": list(inputs["row_id"]),
                "tokens": tokens,
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
        import numpy as np

        from finetune.evaluation.baselines import unigram_baseline

        targets = {name: split.with_format("numpy")["labels"][:] for name, split in inputs.items()}
        text_bytes = np.asarray(inputs["test"].with_format("numpy")["bytes"][:])
        unigram = unigram_baseline(
            targets["train"], targets["test"], text_bytes, answers["nll"], resamples, vocabulary=len(processor)
        )
        return {"unigram": unigram}

    def sample(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase) -> list[str]:
        return [text for prompt in self.prompts for text in self._continued(model, processor, prompt, 1)]

    def generate(self, model: PreTrainedModel, processor: PreTrainedTokenizerBase, count: int, seed: int) -> list[str]:
        """Return `count` texts, as many from each prompt; an empty prompt begins a document."""
        import torch

        shares = [len(range(place, count, len(self.prompts))) for place in range(len(self.prompts))]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return [
                text
                for prompt, share in zip(self.prompts, shares, strict=True)
                for start in range(0, share, TOGETHER)
                for text in self._continued(model, processor, prompt, min(TOGETHER, share - start))
            ]

    def reply(
        self, model: PreTrainedModel, processor: Any, rows: Dataset, options: dict[str, Any], size: int
    ) -> list[str]:
        from finetune.tasks.writing import PLAIN, continued

        given = {**PLAIN, "max_new_tokens": self.sample_tokens, **options}
        return continued(model, processor, rows, self.text, given, size)

    def _continued(
        self, model: PreTrainedModel, processor: PreTrainedTokenizerBase, prompt: str, count: int
    ) -> list[str]:
        """Return `count` texts that begin with the prompt, drawn at temperature 0.8 from the 50 likeliest tokens."""
        import torch

        ids = processor(prompt, add_special_tokens=True, **AS_TEXT)["input_ids"]
        start = processor.bos_token_id if processor.bos_token_id is not None else processor.eos_token_id
        if not ids or ids[0] != start:
            ids = [start, *ids]
        given = torch.tensor([ids], device=model.device)
        with torch.no_grad():
            out = model.generate(  # type: ignore[operator]  # the stub of a mixin
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=self._room(model, len(ids)),
                do_sample=True,
                temperature=0.8,
                top_k=50,
                num_return_sequences=count,
                pad_token_id=processor.pad_token_id,
                use_cache=True,
            )
        return [str(processor.decode(each, skip_special_tokens=True)) for each in out]

    def _room(self, model: PreTrainedModel, used: int) -> int:
        from finetune.loading import context_length

        limit = context_length(model.config)
        return max(1, min(self.sample_tokens, (limit or self.sample_tokens + used) - used))


def packing_gap(task: CausalLM, model: PreTrainedModel) -> float:
    """Return the largest difference between logits of packed and of separate documents, relative to their scale."""
    import torch

    generator = torch.Generator().manual_seed(0)
    size = max(1, min(12, task.block_size // 2))
    ids = torch.randint(0, model.config.get_text_config().vocab_size, (2, size), generator=generator).to(model.device)
    positions = torch.arange(size, device=model.device).repeat(2, 1)
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        apart = task._forward(model, {"input_ids": ids, "position_ids": positions}).logits
        packed = task._forward(model, {"input_ids": ids.view(1, -1), "position_ids": positions.view(1, -1)}).logits
    model.train(was_training)
    return float((packed.view_as(apart) - apart).abs().max() / apart.abs().max().clamp(min=1e-6))


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy of every target in nats, 0 where there is none; shape (batch, length)."""
    from torch.nn import functional as F

    flat = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none", ignore_index=-100)
    return flat.view_as(labels)


def _collate(inputs: list[dict[str, Any]], pad_id: int) -> Batch:
    from finetune.training.batching import IGNORED, carried, padded

    longest = max(len(each["input_ids"]) for each in inputs)
    batch = carried(inputs)
    batch["input_ids"] = padded([each["input_ids"] for each in inputs], pad_id, longest)
    batch["labels"] = padded([each["labels"] for each in inputs], IGNORED, longest)
    # Positions go on counting in the padding: a 0 there would open a document of its own.
    positions = [_continued(list(each["position_ids"]), longest) for each in inputs]
    batch["position_ids"] = padded(positions, 0, longest)
    return batch


def _continued(positions: list[int], length: int) -> list[int]:
    start = positions[-1] + 1
    return positions + list(range(start, start + length - len(positions)))
