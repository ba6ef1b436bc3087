"""How likely pixels are under what a decoder says, in nats a pixel; and what becomes of grey before it is modelled."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from finetune.models import noise

Likelihood = Literal["bernoulli", "gaussian", "discretised-logistic"]
Binarize = Literal["none", "threshold", "dynamic"]
LEVELS = 256  # grey levels of a pixel; level i stands at i / 255
BINARIES = 11  # the stream of what `binarised` draws


def binarised(pixels: Tensor, how: Binarize, keys: Tensor | None = None) -> Tensor:
    """Return pixels of [0, 1] as 0 or 1: 1 above one half ("threshold"), or 1 with the pixel's chance ("dynamic").

    Binary pixels stay as they are. "dynamic" draws anew for each key (Salakhutdinov & Murray 2008 train so); keys that
    do not change, as at evaluation, make it one fixed draw, which is what published figures on "static" sets rest on.

    Args:
        pixels: shape (batch, ...).
        how: "none" returns the pixels.
        keys: shape (batch,), of finetune.models.noise; needed by "dynamic".
    """
    if how == "none":
        return pixels
    if how == "threshold":
        return (pixels > 0.5).to(pixels.dtype)
    if keys is None:
        raise ValueError("dynamic binarisation draws random numbers: it needs keys")
    drawn = noise.uniform(keys, pixels[0].numel(), BINARIES).view(pixels.shape)
    return (drawn < pixels).to(pixels.dtype)


def log_prob(likelihood: Likelihood, pixels: Tensor, said: Tensor, log_scale: Tensor) -> Tensor:
    """Return log p(pixel) of each pixel, in nats; shapes alike, and those of `pixels` may be broadcast.

    Args:
        likelihood: "bernoulli" takes `said` as logits, and is a distribution for pixels of 0 and 1 alone (on grey ones
            it is a cross entropy); "gaussian" is a density; "discretised-logistic" the chance of one of 256 levels.
        pixels: in [0, 1].
        said: what the decoder says: logits, or the means.
        log_scale: shape (), of "gaussian" the log standard deviation, of "discretised-logistic" the log scale.
    """
    if likelihood == "bernoulli":
        pixels, said = torch.broadcast_tensors(pixels, said)
        return -F.binary_cross_entropy_with_logits(said, pixels, reduction="none")
    if likelihood == "gaussian":
        distance = (pixels - said) * (-log_scale).exp()
        return -0.5 * distance.square() - log_scale - 0.5 * math.log(2 * math.pi)
    return _discretised_logistic(pixels, said, log_scale)


def _discretised_logistic(pixels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log of the logistic's mass between the borders of a level; the outer levels take the tails.

    Salimans et al. 2017 (arXiv:1701.05517), section 2.1, written as log σ(a) + log σ(-b) + log(1 - exp(b - a)), which
    is σ(a) - σ(b) without the cancellation.
    """
    half, rate = 0.5 / (LEVELS - 1), (-log_scale).exp()
    above, below = (pixels + half - mean) * rate, (pixels - half - mean) * rate
    upper = torch.where(pixels < half, 0.0, F.logsigmoid(-below))
    lower = torch.where(pixels > 1 - half, 0.0, F.logsigmoid(above))
    inner = (pixels >= half) & (pixels <= 1 - half)
    return lower + upper + torch.where(inner, torch.log(-torch.expm1(-2 * half * rate)), 0.0)


def is_distribution(likelihood: Likelihood, binarize: Binarize) -> bool:
    """Say whether the likelihood is one of the pixels as they are: Bernoulli's is so for binary pixels alone."""
    return likelihood != "bernoulli" or binarize != "none"


def pixel_means(likelihood: Likelihood, said: Tensor) -> Tensor:
    """Return the mean of each pixel, in [0, 1]."""
    return said.sigmoid() if likelihood == "bernoulli" else said.clamp(0.0, 1.0)
