"""How often each class was taken for each other one."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.local_metric import CLASS, LocalMetric


def confusion_matrix(predictions: np.ndarray, references: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Return the counts, shape (C, C): the row is the true class, the column the predicted one (as scikit-learn's)."""
    classes = classes or int(max(predictions.max(), references.max())) + 1
    cells = references.astype(np.int64) * classes + predictions.astype(np.int64)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


class ConfusionMatrix(LocalMetric):
    """Counts by true class (row) and predicted class (column). Predictions and references are class numbers."""

    features_taken: ClassVar = ((CLASS, CLASS),)

    def values(
        self, predictions: np.ndarray, references: np.ndarray, classes: int | None = None, **options: Any
    ) -> dict[str, Any]:
        return {"confusion_matrix": confusion_matrix(predictions, references, classes)}
