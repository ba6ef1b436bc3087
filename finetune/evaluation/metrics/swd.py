"""The sliced Wasserstein distance between two sets of vectors."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.local_metric import VECTOR, LocalMetric

DIRECTIONS = 128


def directions(width: int, count: int = DIRECTIONS, seed: int = 13) -> np.ndarray:
    """Return `count` random unit vectors, shape (width, count)."""
    drawn = np.random.default_rng(seed).normal(size=(width, count))
    return drawn / np.linalg.norm(drawn, axis=0)


def swd(first: np.ndarray, second: np.ndarray, seed: int = 13) -> float:
    """Return the mean 1-Wasserstein distance over random directions, in the units of the vectors; 0 for equal sets.

    Rabin et al. 2011 (doi:10.1007/978-3-642-24785-9_37). It needs no extractor; its floor falls with n.

    Args:
        first, second: shape (n, width) and (m, width).
        seed: of the directions.
    """
    along = directions(first.shape[1], seed=seed)
    return sliced(first @ along, second @ along)


def sliced(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean over columns of the exact 1-Wasserstein distance; shapes (n, count) and (m, count)."""
    n, m = len(first), len(second)
    # Between two steps of either quantile function both are constant.
    steps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    widths, middles = np.diff(steps), (steps[:-1] + steps[1:]) / 2
    low, high = np.sort(first, axis=0), np.sort(second, axis=0)
    gaps = np.abs(low[(middles // m).astype(int)] - high[(middles // n).astype(int)])
    return float(widths @ gaps.mean(axis=1) / (n * m))


class Swd(LocalMetric):
    """The sliced Wasserstein distance. Predictions and references are as many vectors each."""

    features_taken: ClassVar = ((VECTOR, VECTOR),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"swd": swd(predictions, references, **options)}
