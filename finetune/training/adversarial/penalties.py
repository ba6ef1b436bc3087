"""Penalties on the discriminator's slope, one number a row; they join the loss and its one backward pass.

Gradients of gradients lose too much in half precision, so they are taken in float32 with autocast off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def slopes(judge: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor | None = None) -> Tensor:
    """Return the gradient of each logit by its image, flattened to (batch, pixels), differentiable by the weights.

    Args:
        judge: from images to logits; no logit depends on another image.
        images: of the shape that `judge` takes, requiring gradients.
        logits: of these images where they are already there; those of half precision are made again.
    """
    half = torch.is_autocast_enabled(images.device.type)
    with torch.autocast(images.device.type, enabled=False):
        values = judge(images) if half or logits is None else logits
        (gradient,) = torch.autograd.grad(values.sum(), images, create_graph=True)
    return gradient.flatten(1)


def zero_centred(slope: Tensor) -> Tensor:
    """Return the squared length of each slope, shape (batch,): R1 on real, R2 on generated images.

    Mescheder et al. 2018 (arXiv:1801.04406), equation 9; the factor gamma / 2 is the caller's.
    """
    return slope.square().sum(dim=1)


def one_centred(slope: Tensor) -> Tensor:
    """Return how far the length of each slope is from 1, squared, shape (batch,) (Gulrajani et al. 2017)."""
    return (slope.square().sum(dim=1).add(1e-12).sqrt() - 1).square()
