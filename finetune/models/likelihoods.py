"""How likely pixels are under what a decoder says, in nats a pixel; and what becomes of grey before it is modelled."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.models import noise

Likelihood = Literal["bernoulli", "gaussian", "discretised-logistic"]
Binarize = Literal["none", "threshold", "dynamic"]
LEVELS = 256  # grey levels of a pixel; level i stands at i / 255
LEAST_LOG_SCALE = -6.0  # of a learned scale: a density on grey levels has no greatest value
FIRST_LOG_SCALE = -1.2  # log 0.3, about the spread of pixels
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


class PixelLikelihood(nn.Module):
    """p(image | what a decoder says of it), its scale learned where none is given.

    One learned scale for all pixels is the σ-VAE of Rybkin, Daniilidis & Levine 2021 (arXiv:2006.13202).
    """

    def __init__(self, kind: Likelihood, scale: float | None, binarize: Binarize) -> None:
        super().__init__()
        self.kind, self.scale, self.binarize = kind, scale, binarize
        self.learned = scale is None and kind != "bernoulli"
        if self.learned:
            self.log_scale = nn.Parameter(torch.tensor([FIRST_LOG_SCALE]))

    def forward(self, pixels: Tensor, said: Tensor) -> Tensor:
        """Return log p of images (batch, channels, size, size) given k decodings (k, batch, …): shape (k, batch)."""
        return log_prob(self.kind, pixels, said, self.current(said)).flatten(2).sum(dim=2)

    def current(self, like: Tensor) -> Tensor:
        """Return the log scale, of shape (), learned or fixed; a learned one stops at exp(-6)."""
        if self.learned:
            return LEAST_LOG_SCALE + F.softplus(full(self.log_scale[0]) - LEAST_LOG_SCALE)
        return torch.tensor(math.log(self.scale or 1.0), dtype=like.dtype, device=like.device)

    def means(self, said: Tensor) -> Tensor:
        """Return the mean of each pixel, in [0, 1]."""
        return said.sigmoid() if self.kind == "bernoulli" else said.clamp(0.0, 1.0)

    def bits_per_dim(self, nats: Tensor, count: int) -> Tensor | None:
        """Return bits a pixel and channel of images of `count` of them, from nats an image.

        A density is held against chances by the width of a grey level, 1 / 255: an approximation, and a good one while
        the scale is wider than that. None for Bernoulli on grey pixels, a cross entropy and no likelihood.
        """
        if self.kind == "bernoulli" and self.binarize == "none":
            return None
        return nats / (count * math.log(2)) + (math.log2(LEVELS - 1) if self.kind == "gaussian" else 0.0)


def full(values: Tensor) -> Tensor:
    """Return half precision as float32: sums over thousands of pixels need it."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
