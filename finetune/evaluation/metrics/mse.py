"""The mean squared error."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import weights_of
from finetune.evaluation.local_metric import NUMBER, LocalMetric


def mse(predictions: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the mean squared error, of shape () or (R,); 0 is best.

    Args:
        predictions, references: shape (n,), numbers in the same unit.
        weights: shape (n,) or (n, R), how often each row counts.
    """
    weights = weights_of(weights, len(references))
    return ((predictions - references) ** 2) @ weights / weights.sum(axis=0)


class Mse(LocalMetric):
    """The mean squared error. Predictions and references are numbers."""

    features_taken: ClassVar = ((NUMBER, NUMBER),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"mse": mse(predictions, references)}
