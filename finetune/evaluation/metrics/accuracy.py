"""The share of rows whose class is right."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import weights_of
from finetune.evaluation.local_metric import CLASS, LocalMetric


def accuracy(predictions: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the share of equal class numbers, of shape () or (R,).

    Args:
        predictions, references: shape (n,), class numbers.
        weights: shape (n,) or (n, R), how often each row counts.
    """
    weights = weights_of(weights, len(references))
    return (predictions == references).astype(np.float64) @ weights / weights.sum(axis=0)


class Accuracy(LocalMetric):
    """The share of rows whose class is right. Predictions and references are class numbers."""

    features_taken: ClassVar = ((CLASS, CLASS),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"accuracy": accuracy(predictions, references)}
