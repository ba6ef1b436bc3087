"""Hidden states of a student held against its teacher's: which layer against which, and how far they lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def layer_map(student: int, teacher: int) -> list[int]:
    """Return for each hidden state of the student the number of the teacher's that it is held against.

    Uniform: state 0, the embeddings, against the embeddings, the last against the last, and those between as far up
    (Jiao et al. 2020, arXiv:1909.10351, section 4.1: g(m) = m x N / M).

    Args:
        student, teacher: numbers of hidden states, layers and one.
    """
    return [round(each * (teacher - 1) / max(student - 1, 1)) for each in range(student)]


def distance(student: Sequence[Tensor], teacher: Sequence[Tensor], places: Tensor) -> Tensor:
    """Return the mean squared distance of each row's hidden states, over pairs of layers, its places and dimensions.

    A mean over a row's own places: neither its padding nor its neighbours change it.

    Args:
        student, teacher: as `layer_map` counts them; each of shape (batch, length, width), of one width.
        places: those that count, bool, shape (batch, length) or (batch, 1).

    Returns:
        Shape (batch,).
    """
    import torch

    pairs = layer_map(len(student), len(teacher))
    each = [
        (own.float() - teacher[number].float()).square().mean(dim=-1)
        for own, number in zip(student, pairs, strict=True)
    ]
    far = torch.stack(each).mean(dim=0)
    there = places.expand_as(far).float()
    return (far * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)
