"""Generated and real images compared by their pixels: what needs no extractor of features."""

from __future__ import annotations

import numpy as np

from finetune.evaluation.bootstrap import bootstrap
from finetune.evaluation.jackknife import jackknife
from finetune.evaluation.metrics.c2st import on_levels, told_apart
from finetune.evaluation.metrics.swd import directions, sliced
from finetune.task import Score, Scores


def pixel_scores(images: np.ndarray, real: np.ndarray, resamples: int, seed: int = 13) -> Scores:
    """Return `swd` and `c2st_pixels` of images against real ones, uint8 of shape (n, size, size, channels)."""
    images = on_levels(images, np.unique(real))
    ours, theirs = (each.reshape(len(each), -1).astype(np.float32) / 255 for each in (images, real))
    along = directions(ours.shape[1], seed=seed).astype(np.float32)
    distance = jackknife(sliced, ours @ along, theirs @ along, intervals=resamples > 0)
    return {"swd": distance, "c2st_pixels": accuracy(told_apart(ours, theirs, seed), resamples, seed)}


def accuracy(right: np.ndarray, resamples: int, seed: int = 13) -> Score:
    """Return the share of rows that were told apart, with its bootstrap over rows."""
    held = right.astype(np.float64)
    return bootstrap(lambda weights: {"c2st": held @ weights / len(held)}, len(held), resamples, seed)["c2st"]
