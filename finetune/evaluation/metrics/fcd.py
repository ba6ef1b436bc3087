"""The Fréchet distance between two sets of classifier features.

Not FID: that is the same formula on the features of one certain network, Inception-v3 of 2015.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.local_metric import VECTOR, LocalMetric


def fcd(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Fréchet distance between Gaussians of the two sets' means and covariances; never negative.

    Dowson & Landau 1982; Heusel et al. 2017 (arXiv:1706.08500) for its use. It shrinks with n towards its value, so
    it is only compared at equal n and in one feature space.

    Args:
        first, second: features, shape (n, width) and (m, width), at least 2 rows each.
    """
    ours, theirs = gaussian(first), gaussian(second)
    return frechet(*ours, *theirs)


def gaussian(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of rows, shape (width,), and their covariance, shape (width, width), in float64."""
    rows = np.asarray(rows, dtype=np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    return mean, centred.T @ centred / (len(rows) - 1)


def frechet(mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray) -> float:
    """Return |m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁C₂)^½).

    The last trace is the sum of the singular values of C₁^½ C₂^½: no root of a matrix that is not symmetric, and
    nothing to be done where features are dead or fewer rows than features make the covariances singular.
    """
    roots = _root(covariance) @ _root(other_covariance)
    shared = np.linalg.svd(roots, compute_uv=False).sum()
    gap = float(((mean - other_mean) ** 2).sum())
    return max(0.0, gap + float(np.trace(covariance) + np.trace(other_covariance)) - 2 * float(shared))


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


class Fcd(LocalMetric):
    """The Fréchet distance. Predictions and references are the features of as many rows each."""

    features_taken: ClassVar = ((VECTOR, VECTOR),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"fcd": fcd(predictions, references)}
