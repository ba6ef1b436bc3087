"""Generated and real images compared by their pixels: what needs no extractor of features."""

from __future__ import annotations

import numpy as np

from finetune.evaluation.bootstrap import bootstrap, interval
from finetune.evaluation.jackknife import jackknife
from finetune.evaluation.metrics.c2st import on_levels, told_apart
from finetune.evaluation.metrics.memorisation import memorisation
from finetune.evaluation.metrics.swd import directions, sliced
from finetune.task import Score, Scores


def pixel_scores(images: np.ndarray, real: np.ndarray, resamples: int, seed: int = 13) -> Scores:
    """Return `swd` and `c2st_pixels` of images against real ones, uint8 of shape (n, size, size, channels).

    Images are first moved to the grey levels that the real ones have, so that no test tells them by their rounding.
    """
    images = on_levels(images, np.unique(real))
    ours, theirs = (each.reshape(len(each), -1).astype(np.float32) / 255 for each in (images, real))
    along = directions(ours.shape[1], seed=seed).astype(np.float32)
    first, second = ours @ along, theirs @ along
    swd = jackknife(lambda a, b: sliced(first[a], second[b]), len(first), len(second), intervals=resamples > 0)
    return {"c2st_pixels": accuracy(told_apart(ours, theirs, seed), resamples, seed), "swd": swd}


def accuracy(right: np.ndarray, resamples: int, seed: int = 13) -> Score:
    """Return the share of rows that were told apart, with its bootstrap over rows."""
    held = right.astype(np.float64)
    return bootstrap(lambda weights: {"": held @ weights / len(held)}, len(held), resamples, seed)[""]


def memorisation_ratio(generated: np.ndarray, held_out: np.ndarray, resamples: int, seed: int = 13) -> Score | None:
    """Return the memorisation ratio of distances to the nearest training image, with a bootstrap over both.

    None where the median held-out image is itself a training image: copies and new images then look alike.
    """
    if not np.median(held_out) > 0:
        return None
    draw = np.random.default_rng(seed)
    drawn = [memorisation(_resampled(generated, draw), _resampled(held_out, draw)) for _ in range(resamples)]
    low, high = interval([np.array(drawn)] if drawn else [])
    return Score(memorisation(generated, held_out), low, high, len(generated))


def _resampled(values: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return values[draw.integers(0, len(values), len(values))]
