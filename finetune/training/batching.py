"""Making batches: padding that is always on the right, and masks that keep packed documents apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from finetune.models.noise import keys

IGNORED = -100  # the label that torch's cross entropy leaves out
CARRIED = ("index", "row", "row_id")  # what a batch holds for the trainer and not for the model


def padded(sequences: Sequence[Sequence[int]], value: int, length: int) -> Tensor:
    """Return the sequences as one int64 tensor of shape (batch, length), filled on the right with `value`."""
    out = torch.full((len(sequences), length), value, dtype=torch.long)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence)] = torch.as_tensor(sequence)
    return out


def carried(inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what every batch carries for the trainer and not for the model: index, row, row_id."""
    batch: dict[str, Any] = {
        key: torch.tensor([each[key] for each in inputs]) for key in ("index", "row") if key in inputs[0]
    }
    if "row_id" in inputs[0]:
        batch["row_id"] = [each["row_id"] for each in inputs]
    return batch


def drawn(seed: int, step: int, rows: Tensor, progress: float) -> dict[str, Tensor]:
    """Return what a loss that draws or follows a schedule is given: see `Task.draws`."""
    return {"keys": keys(seed, step, rows), "progress": torch.tensor(progress, dtype=torch.float32)}


def block_causal_mask(position_ids: Tensor, attention: str, dtype: torch.dtype) -> Tensor | None:
    """Return the mask under which a token sees its own document's past alone, or None where causality is enough.

    A position of 0 opens a document. Position ids alone are not enough: OPT attends across documents in spite of them.
    SDPA takes a boolean mask (True = may see); eager attention adds its mask to the scores, and a boolean one there
    is silently wrong, so each gets its own.

    Args:
        position_ids: shape (batch, length), restarting at 0 with every document.
        attention: the model's attention implementation, "sdpa" or "eager".
        dtype: the dtype of an additive mask.

    Returns:
        Shape (batch, 1, length, length), or None when no row holds more than one document.
    """
    opens = position_ids == 0
    if bool((opens.sum(dim=1) <= 1).all()):
        return None
    document = opens.cumsum(dim=1)
    same = document[:, :, None] == document[:, None, :]
    seen = (same & torch.ones_like(same).tril())[:, None]
    if attention == "sdpa":
        return seen
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def block_mask(position_ids: Tensor, attention: str, dtype: torch.dtype) -> Tensor:
    """Return the mask under which a token sees all of its own document and nothing else; for models without causality.

    As `block_causal_mask`, which see. Padding whose positions are all 0 is a document a token: no row of the mask is
    empty, so no attention is not a number.
    """
    document = (position_ids == 0).cumsum(dim=1)
    seen = (document[:, :, None] == document[:, None, :])[:, None]
    if attention == "sdpa":
        return seen
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def count_tokens(batch: dict[str, Any], lengths: list[int] | None, index: Tensor | None) -> int:
    """Return the tokens of a batch, without its padding: by the known lengths of its rows, else by its mask."""
    if lengths is not None and index is not None:
        return sum(lengths[row] for row in index.tolist())
    mask = batch.get("attention_mask")
    if mask is not None and mask.dim() == 2:
        return int(mask.sum())
    return batch["input_ids"].numel() if "input_ids" in batch else 0
