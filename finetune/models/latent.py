"""What every variational autoencoder computes of its latent space, in nats; no weights, no state.

A schedule is a function of `progress`, the share of the training steps that is done, so that a resumed run needs
nothing to go on with it; every term belongs to one row, so that it does not matter how rows fall into batches.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Schedule = Literal["linear", "cyclical"]
ACTIVE = 0.01  # the variance of a dimension's mean over rows from which on it counts as active (Burda et al. 2016)


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)) of each dimension.

    The closed form of Kingma & Welling 2014 (arXiv:1312.6114), appendix B, before its sum over dimensions.

    Args:
        mean, log_variance: shape (batch, latent_dim), the diagonal Gaussian that the encoder names.

    Returns:
        Shape (batch, latent_dim), in nats, never negative.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance)


def with_free_bits(kl: Tensor, free_bits: float) -> Tensor:
    """Return what the divergence of each row costs when `free_bits` of it are free.

    Each dimension costs at least its share, free_bits / latent_dim, so that below it nothing pulls it to the prior
    (Kingma et al. 2016, arXiv:1606.04934, appendix C.8; there with the mean over a batch, which would make the loss
    depend on how rows fall into batches).

    Args:
        kl: shape (batch, latent_dim), nats.
        free_bits: nats a row, over all dimensions together; 0 for the plain sum.

    Returns:
        Shape (batch,), nats.
    """
    return kl.clamp(min=free_bits / kl.shape[1]).sum(dim=1)


def kl_weight(
    progress: Tensor, beta: float = 1.0, warmup: float = 0.0, schedule: Schedule = "linear", cycles: int = 4
) -> Tensor:
    """Return the weight of the divergence when a share `progress` of training is done; shape (), from 0 to beta.

    Args:
        progress: shape (), from 0 to 1.
        beta: the weight in the end (Higgins et al. 2017).
        warmup: the share of training ("linear"), or of each cycle ("cyclical"), in which it grows from 0; 0: at once.
        schedule: "linear" grows once (Bowman et al. 2016, arXiv:1511.06349); "cyclical" starts anew with every cycle
            (Fu et al. 2019, arXiv:1903.10145).
        cycles: how many cycles training has.
    """
    if warmup <= 0:
        return torch.full_like(progress, beta)
    if schedule == "cyclical":
        place = progress * cycles
        progress = torch.where(progress < 1, place - place.floor(), 1.0)
    return beta * (progress / warmup).clamp(max=1.0)


def reparameterised(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Return mean + exp(log_variance / 2) · noise: a draw whose gradient reaches the encoder. Shapes alike."""
    return mean + (0.5 * log_variance).exp() * noise


def log_normal(value: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return log N(value; mean, exp(log_variance)) summed over the last dimension, in nats."""
    squares = (value - mean).square() * (-log_variance).exp()
    return -0.5 * (squares + log_variance + math.log(2 * math.pi)).sum(dim=-1)


def importance_weighted(log_weights: Tensor) -> Tensor:
    """Return log of the mean weight of k importance samples: a lower bound of log p(x) that grows with k.

    Burda, Grosse & Salakhutdinov 2016 (arXiv:1509.00519), equation 8.

    Args:
        log_weights: shape (k, batch), log p(x, z) - log q(z | x) in nats.

    Returns:
        Shape (batch,), nats.
    """
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))


def active_units(mean: Tensor, threshold: float = ACTIVE) -> int:
    """Return how many dimensions of the posterior mean, of shape (rows, latent_dim), vary by more than `threshold`.

    The variance over rows of the mean (Burda et al. 2016, section 5); with fewer than two rows, 0.
    """
    return int((mean.double().var(dim=0) > threshold).sum()) if len(mean) > 1 else 0


def mutual_information(mean: Tensor, log_variance: Tensor, draw: Tensor) -> float:
    """Return an estimate of the mutual information of rows and latents under the encoder, in nats.

    E[log q(z|x)] - E[log q(z)], where q(z) is the mixture of all rows' posteriors and z one draw a row (Hoffman &
    Johnson 2016). At most log(rows); near 0, and at times a little below, when the encoder says nothing.

    Args:
        mean, log_variance: shape (rows, latent_dim).
        draw: a draw of each row's posterior, shape (rows, latent_dim).
    """
    own = log_normal(draw, mean, log_variance)
    every = torch.stack([log_normal(one, mean, log_variance).logsumexp(dim=0) for one in draw])
    return float((own - every + math.log(len(draw))).double().mean())
