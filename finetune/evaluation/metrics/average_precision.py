"""Average precision: the area under the precision-recall curve, as a sum over thresholds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import divide, mean_defined, one_against_rest, threshold_counts, weights_of
from finetune.evaluation.local_metric import CLASS, CLASS_SCORES, LABEL_SET, NUMBER, LocalMetric


def average_precision(scores: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the sum over thresholds of (rise in recall) x precision, of shape () or (R,).

    No interpolation, which would be too kind: Davis & Goadrich 2006. With several classes: each against the rest,
    averaged (macro) over the classes that have positive rows; NaN when none has.

    Args:
        scores: shape (n,) of the positive class, or (n, C) for C classes or labels.
        references: shape (n,), 0/1 or class numbers; or (n, C), 0/1 for each label.
        weights: shape (n,) or (n, R), how often each row counts.
    """
    weights = weights_of(weights, len(references))
    areas = [_area(one, positive, weights) for one, positive in one_against_rest(scores, references)]
    return mean_defined(np.stack(areas)) if areas else np.full(weights.shape[1:], np.nan)


def _area(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    at = threshold_counts(scores, positive, weights)
    right = np.cumsum(at.positives, axis=0)
    said = right + at.negatives_above + at.negatives
    precision = np.where(said > 0, divide(right, said), 0.0)  # nothing said yet: recall has not risen either
    return divide((at.positives * precision).sum(axis=0), right[-1])


class AveragePrecision(LocalMetric):
    """Average precision of the positive class (binary), or macro over classes against the rest.

    Predictions are scores or probabilities (one, or one for each class), references class numbers or 0/1 per label.
    """

    features_taken: ClassVar = ((NUMBER, CLASS), (CLASS_SCORES, CLASS), (CLASS_SCORES, LABEL_SET))

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"average_precision": average_precision(predictions, references)}
