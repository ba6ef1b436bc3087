"""From texts to latents and back: batches of a text autoencoder, and the sentences that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.tasks.lengths import AS_TEXT
from finetune.tasks.two_tokenizers import TwoTokenizers, decoder_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune.task import Batch, Processor
    from finetune.tasks.text_vae import TextVAETask

ROWS = 64  # texts that are read or written at once


def collate(inputs: list[dict[str, Any]], processor: Processor) -> Batch:
    """Make a batch: `input_ids`, `labels`; with two tokenizers `encoder_input_ids` and `encoder_attention_mask` too.

    The encoder reads exactly what the decoder must write, cut or not: the targets, as text.
    """
    from finetune.training.batching import IGNORED, carried, padded

    longest = max(len(each["input_ids"]) for each in inputs)
    batch = carried(inputs)
    words = decoder_tokenizer(processor)
    pad = words.pad_token_id if words.pad_token_id is not None else words.eos_token_id
    batch["input_ids"] = padded([each["input_ids"] for each in inputs], int(pad), longest)
    batch["labels"] = padded([each["labels"] for each in inputs], IGNORED, longest)
    if isinstance(processor, TwoTokenizers):
        texts = [words.decode(each["labels"], skip_special_tokens=True) for each in inputs]
        read = processor.encoder(texts, padding=True, truncation=True, return_tensors="pt", **AS_TEXT)
        batch |= {f"encoder_{name}": read[name] for name in ("input_ids", "attention_mask")}
    return batch


class Writer:
    """Writes sentences with a trained model, from fixed seeds."""

    def __init__(self, task: TextVAETask, model: Any, processor: Processor) -> None:
        self.task, self.processor = task, processor
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model

    def noise(self, count: int, seed: int) -> Tensor:
        """Return `count` draws of the prior, of shape (count, latent_dim)."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(count, self.model.config.latent_dim, generator=generator)
        return drawn.to(self.model.device, self.model.dtype)

    def from_prior(self, count: int, seed: int) -> list[str]:
        """Return sentences from draws of the prior."""
        import torch

        drawn = torch.Generator().manual_seed(seed)
        return self.texts(self.noise(count, seed), self.task.temperature, drawn)

    def between_draws(self, lines: int, steps: int, seed: int) -> list[str]:
        """Return `lines` walks of `steps` sentences, each between two draws of the prior."""
        import torch

        ends = self.noise(2 * lines, seed)
        walks = [straight(ends[2 * line], ends[2 * line + 1], steps) for line in range(lines)]
        return self.texts(torch.cat(walks))

    def walk(self, pair: tuple[str, ...], steps: int) -> list[str]:
        """Return `steps` sentences on the straight line between the latents of two texts, the texts' own included."""
        from datasets import Dataset

        rows = Dataset.from_dict({self.task.text: list(pair), "row_id": ["first", "last"]})
        inputs = self.task.encode(rows, self.processor, "truncate").inputs
        mean, _ = self.read(collate([inputs[0], inputs[1]], self.processor))
        return self.texts(straight(mean[0], mean[1], steps))

    def texts(self, latents: Tensor, temperature: float = 0.0, generator: torch.Generator | None = None) -> list[str]:
        """Return the sentence of each latent, of shape (n, latent_dim); the likeliest words at temperature 0."""
        words = decoder_tokenizer(self.processor)
        written: list[str] = []
        for part in latents.split(ROWS):
            ids = self.model.write(part, self.task.sample_tokens, temperature, generator)
            written += [str(words.decode(each, skip_special_tokens=True)) for each in ids]
        return written

    def read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the posteriors of a batch."""
        import torch

        device = self.model.device
        ids, mask = batch["input_ids"], (batch["labels"] != -100).long()
        if "encoder_input_ids" in batch:
            ids, mask = batch["encoder_input_ids"], batch["encoder_attention_mask"]
        with torch.no_grad():
            mean, log_variance = self.model.encode(ids.to(device), mask.to(device))
        return mean, log_variance


def straight(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Return `steps` points from `first` to `last`, of shape (steps, latent_dim)."""
    import torch

    place = torch.linspace(0, 1, steps, device=first.device, dtype=first.dtype)[:, None]
    return first + place * (last - first)
