"""The kernel distance between two sets of classifier features: an unbiased squared maximum mean discrepancy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.local_metric import VECTOR, LocalMetric

BLOCK = 2000  # rows of each set that are compared with one another

Kernels = tuple[np.ndarray, np.ndarray, np.ndarray]  # first with first, with second, second with second; diagonals 0


def kcd(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean over blocks of rows of the unbiased MMD² with the kernel (x·y / width + 1)³.

    Bińkowski et al. 2018 (arXiv:1801.01401); features are first centred and scaled as `normalised` says. Its mean is 0
    for equal distributions, at few rows as at many (the scaling aside), and so it is below 0 now and then.

    Args:
        first, second: features, shape (n, width) and (m, width), at least 2 rows each; `second` are the real ones.
    """
    return blocks(first, second)(np.ones(len(first), dtype=bool), np.ones(len(second), dtype=bool))


def blocks(first: np.ndarray, second: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return the distance as a function of which rows count, bool of shapes (n,) and (m,)."""
    first, second = normalised(first, second)
    count = -(-max(len(first), len(second)) // BLOCK)
    count = max(1, min(count, len(first) // 2, len(second) // 2))
    owners = [np.arange(len(each)) % count for each in (first, second)]
    held = [_kernels(first[owners[0] == block], second[owners[1] == block]) for block in range(count)]

    def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
        pairs = enumerate(held)
        return float(np.mean([_mmd(each, ours[owners[0] == at], theirs[owners[1] == at]) for at, each in pairs]))

    return distance


def normalised(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both sets less the mean of the second, in units of its root mean variance over the features.

    One unit for all features: dead ones stay dead, and the distance does not change with the scale of a network.
    """
    second = np.asarray(second, dtype=np.float64)
    mean, scale = second.mean(axis=0), np.sqrt(second.var(axis=0).mean())
    scale = scale if scale > 0 else 1.0
    return (np.asarray(first, dtype=np.float64) - mean) / scale, (second - mean) / scale


def _kernels(first: np.ndarray, second: np.ndarray) -> Kernels:
    def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (one @ other.T / one.shape[1] + 1) ** 3

    own, other = kernel(first, first), kernel(second, second)
    np.fill_diagonal(own, 0)
    np.fill_diagonal(other, 0)
    return own, kernel(first, second), other


def _mmd(kernels: Kernels, ours: np.ndarray, theirs: np.ndarray) -> float:
    own, between, other = kernels
    x, y = ours.astype(np.float64), theirs.astype(np.float64)
    n, m = x.sum(), y.sum()
    return x @ own @ x / (n * (n - 1)) + y @ other @ y / (m * (m - 1)) - 2 * (x @ between @ y) / (n * m)


class Kcd(LocalMetric):
    """The kernel distance. Predictions are generated rows' features, references as many real ones'."""

    features_taken: ClassVar = ((VECTOR, VECTOR),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"kcd": kcd(predictions, references)}
