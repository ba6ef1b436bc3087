"""How far two answers to the same inputs lie apart, over the targets alone: what R-Drop makes small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from finetune.objectives.distillation import divergence

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # the label of what is no target


def apart(
    one: Tensor, other: Tensor, labels: Tensor, problem: Literal["single", "multi", "regression"] = "single"
) -> Tensor:
    """Return the divergence of one answer from the other, summed over targets: a scalar, in nats.

    Args:
        one, other: logits, shape (batch, classes), or (batch, length, classes) of tokens.
        labels: shape (batch, …); with a token's logits, places of IGNORED are left out.
        problem: see `finetune.objectives.distillation.divergence`.
    """
    each = divergence(other.float(), one.float(), 1.0, problem)
    return each[labels != IGNORED].sum() if each.shape == labels.shape else each.sum()
