"""The rank correlation of predictions and references."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import group_sums, weights_of
from finetune.evaluation.local_metric import NUMBER, LocalMetric
from finetune.evaluation.metrics.pearson import correlation


def spearman(predictions: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return Spearman's rank correlation, in [−1, 1], of shape () or (R,): Pearson's of the mid-ranks.

    Spearman 1904. Ties share their mean rank; a row drawn k times is k rows. NaN where either side is constant.

    Args:
        predictions, references: shape (n,), numbers.
        weights: shape (n,) or (n, R), how often each row counts.
    """
    weights = weights_of(weights, len(references))
    return correlation(midranks(predictions, weights), midranks(references, weights), weights)


def midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return each row's rank among the rows counted by weights, of the shape of the weights; ties share their mean."""
    distinct, owner = np.unique(values, return_inverse=True)
    counts = group_sums(owner, len(distinct), weights)
    return (np.cumsum(counts, axis=0) - (counts - 1) / 2)[owner]


class Spearman(LocalMetric):
    """Spearman's rank correlation. Predictions and references are numbers."""

    features_taken: ClassVar = ((NUMBER, NUMBER),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"spearman": spearman(predictions, references)}
