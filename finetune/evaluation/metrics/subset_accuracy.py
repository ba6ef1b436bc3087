"""The share of rows whose whole set of labels is right."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import weights_of
from finetune.evaluation.local_metric import LABEL_SET, LocalMetric


def subset_accuracy(predictions: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the share of rows in which every label is right, of shape () or (R,).

    Also called exact match; Tsoumakas & Katakis 2007, *Multi-label classification: an overview*.

    Args:
        predictions, references: shape (n, C), 0 or 1 for each label.
        weights: shape (n,) or (n, R), how often each row counts.
    """
    weights = weights_of(weights, len(references))
    return (predictions == references).all(axis=1).astype(np.float64) @ weights / weights.sum(axis=0)


class SubsetAccuracy(LocalMetric):
    """The share of rows whose whole set of labels is right. Predictions and references are 0/1 for each label."""

    features_taken: ClassVar = ((LABEL_SET, LABEL_SET),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"subset_accuracy": subset_accuracy(predictions, references)}
