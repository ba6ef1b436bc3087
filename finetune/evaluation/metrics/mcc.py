"""Matthews' correlation coefficient, for two or more classes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import ClassCounts, class_counts, divide
from finetune.evaluation.local_metric import CLASS, LocalMetric


def mcc(counts: ClassCounts) -> np.ndarray:
    """Return the correlation of predicted and true classes, in [−1, 1], of shape () or (R,).

    R_K of Gorodkin 2004, *Comparing two K-category assignments by a K-category correlation coefficient*; for two
    classes Matthews 1975. 0 when only one class is said, NaN when the rows are all of one class.
    """
    rows = counts.meant.sum(axis=0)
    shared = counts.right.sum(axis=0) * rows - (counts.said * counts.meant).sum(axis=0)
    said, meant = (rows**2 - (part**2).sum(axis=0) for part in (counts.said, counts.meant))
    return np.where(meant > 0, np.where(said > 0, divide(shared, np.sqrt(said * meant)), 0.0), np.nan)


class Mcc(LocalMetric):
    """Matthews' correlation coefficient. Predictions and references are class numbers."""

    features_taken: ClassVar = ((CLASS, CLASS),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"mcc": mcc(class_counts(predictions, references))}
