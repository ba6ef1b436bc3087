"""How far two answers to the same inputs lie apart, over the targets alone: what R-Drop and distillation make small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from finetune.objectives.distillation import divergence

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100  # the label of what is no target


def apart(
    one: Tensor,
    other: Tensor,
    labels: Tensor,
    problem: Literal["single", "multi", "regression"] = "single",
    temperature: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the divergence of one answer from the other, times T², summed over targets: a scalar, in nats.

    Args:
        one, other: logits, shape (batch, classes), or (batch, length, classes) of tokens.
        labels: shape (batch, …); with a token's logits, places of IGNORED are left out.
        problem, temperature: see `finetune.objectives.distillation.divergence`.
        weights: of each label, as in the loss on the targets; shape (classes,).
    """
    one, other = one.float(), other.float()
    if other.dim() == 3:  # the places that are no targets cost nothing
        there = labels != IGNORED
        one, other, labels = one[there], other[there], labels[there]
    each = divergence(other, one, temperature, problem)
    return each.sum() if weights is None else (each * weights[labels]).sum()
