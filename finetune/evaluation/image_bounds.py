"""Scores of an autoencoder of images, in nats an image, and of pixels that know nothing of each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from finetune.evaluation.bootstrap import Measure, bootstrap, with_gaps
from finetune.evaluation.counting import divide
from finetune.evaluation.metrics.active_units import active_units
from finetune.evaluation.metrics.nelbo import nelbo
from finetune.task import Scores

Pixels = Literal["binary", "grey", "density", "levels"]
LEVELS = 256
LEAST_DEVIATION = 1 / 255  # of a pixel's Gaussian: a pixel that never changes would have an infinite density


def image_bound_scores(answers: Mapping[str, np.ndarray], resamples: int, seed: int = 13) -> Scores:
    """Return the scores of the evidence lower bound, with 95 % intervals over images.

    `nelbo`, `reconstruction` and `kl` are nats an image, `bits_per_dim` bits a pixel and channel. Continuous latents
    have `active_units`: dimensions whose posterior mean has a variance above 0.01. Codes have `code_usage`, the share
    of the codebook that is met, and `code_perplexity`, exp(entropy) of how often each code is.

    Args:
        answers: `nelbo`, `reconstruction` (n,); `kl` (n, latent_dim); perhaps `bits_per_dim` (n,); `mean`
            (n, latent_dim) of the posteriors, or `codes` (n, positions) below `codebook` (n,).
        resamples, seed: of the bootstrap.
    """
    kl = answers["kl"].astype(np.float64).sum(axis=1)
    counts = code_counts(answers["codes"], int(answers["codebook"][0])) if "codes" in answers else None

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {
            "nelbo": nelbo(answers["nelbo"], weights),
            "reconstruction": nelbo(answers["reconstruction"], weights),
            "kl": nelbo(kl, weights),
        }
        if "bits_per_dim" in answers:
            found["bits_per_dim"] = nelbo(answers["bits_per_dim"], weights)
        if "mean" in answers:
            found["active_units"] = active_units(answers["mean"], weights)
        return found if counts is None else {**found, **_of_codes(counts, weights)}

    return bootstrap(measure, len(kl), resamples, seed)


def code_counts(codes: np.ndarray, size: int) -> np.ndarray:
    """Return how often each image has each of `size` codes: shape (n, size)."""
    counts = np.zeros((len(codes), size))
    np.add.at(counts, (np.arange(len(codes))[:, None], codes), 1.0)
    return counts


def _of_codes(counts: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    met = counts.T @ weights
    shares = divide(met, met.sum(axis=0))
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=0)
    return {"code_usage": (met > 0).mean(axis=0), "code_perplexity": np.exp(entropy)}


def independent_pixels(
    train: np.ndarray, test: np.ndarray, kind: Pixels, bound: np.ndarray, resamples: int, seed: int = 13
) -> Scores:
    """Return `nelbo` of pixels that are fitted on train one by one, with the paired gap to the model's bound.

    Args:
        train, test: shape (n, pixels): in [0, 1], or 0 and 1 for "binary".
        kind: "binary" and "grey" pixels have add-one smoothed chances, "density" a Gaussian, "levels" add-one smoothed
            frequencies of 256 levels.
        bound: shape (n,), the model's nats on each test image.
        resamples, seed: of the bootstrap.
    """
    cost = pixel_costs(train.astype(np.float64), test.astype(np.float64), kind)

    def of(nats: np.ndarray) -> Measure:
        return lambda weights: {"nelbo": nelbo(nats, weights)}

    return bootstrap(with_gaps(of(cost), of(bound), ("nelbo",)), len(test), resamples, seed)


def pixel_costs(train: np.ndarray, test: np.ndarray, kind: Pixels) -> np.ndarray:
    """Return the nats of each test image, shape (n,); arguments as of `independent_pixels`."""
    if kind in ("binary", "grey"):
        chance = (train.sum(axis=0) + 1) / (len(train) + 2)
        return -(test @ np.log(chance) + (1 - test) @ np.log1p(-chance))
    if kind == "density":
        deviation = np.maximum(train.std(axis=0), LEAST_DEVIATION)
        distance = (test - train.mean(axis=0)) / deviation
        return (0.5 * distance**2 + np.log(deviation) + 0.5 * np.log(2 * np.pi)).sum(axis=1)
    levels, places = np.rint(train * 255).astype(int), np.arange(train.shape[1])
    counts = np.ones((train.shape[1], LEVELS))
    np.add.at(counts, (places[None], levels), 1.0)
    return -np.log((counts / counts.sum(axis=1, keepdims=True))[places[None], np.rint(test * 255).astype(int)]).sum(
        axis=1
    )
