"""The linear correlation of predictions and references."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import divide, weights_of
from finetune.evaluation.local_metric import NUMBER, LocalMetric


def pearson(predictions: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return Pearson's product-moment correlation, in [−1, 1], of shape () or (R,).

    Pearson 1896. NaN where either side is constant.

    Args:
        predictions, references: shape (n,), numbers.
        weights: shape (n,) or (n, R), how often each row counts.
    """
    weights = weights_of(weights, len(references))
    return correlation(_column(predictions, weights), _column(references, weights), weights)


def correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the correlation of x and y, whose shapes broadcast to that of the weights, (n,) or (n, R)."""
    total = weights.sum(axis=0)
    x = x - (x * weights).sum(axis=0) / total
    y = y - (y * weights).sum(axis=0) / total
    spread = [(part**2 * weights).sum(axis=0) for part in (x, y)]
    # What rounding leaves of a constant is no spread.
    tiny = [total * (np.finfo(np.float64).eps * np.abs(part).max(initial=1.0)) ** 2 for part in (x, y)]
    constant = (spread[0] <= tiny[0]) | (spread[1] <= tiny[1])
    together = divide((x * y * weights).sum(axis=0), np.sqrt(spread[0] * spread[1]))
    return np.where(constant, np.nan, np.clip(together, -1.0, 1.0))


def _column(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    centred = values.astype(np.float64) - values.astype(np.float64).mean()
    return centred.reshape((-1,) + (1,) * (weights.ndim - 1))


class Pearson(LocalMetric):
    """Pearson's correlation. Predictions and references are numbers."""

    features_taken: ClassVar = ((NUMBER, NUMBER),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"pearson": pearson(predictions, references)}
