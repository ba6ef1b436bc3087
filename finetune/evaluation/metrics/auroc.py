"""The area under the receiver operating characteristic."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import divide, mean_defined, one_against_rest, threshold_counts, weights_of
from finetune.evaluation.local_metric import CLASS, CLASS_SCORES, LABEL_SET, NUMBER, LocalMetric


def auroc(scores: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the chance that a positive row scores above a negative one, ties counted half; of shape () or (R,).

    The Mann-Whitney form, Hanley & McNeil 1982. With several classes: each against the rest, averaged (macro) over
    the classes that have both positive and negative rows; NaN when none has.

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
    positives = at.positives.sum(axis=0)
    negatives = weights.sum(axis=0) - positives
    below = negatives - at.negatives_above - at.negatives / 2
    return divide((at.positives * below).sum(axis=0), positives * negatives)


class Auroc(LocalMetric):
    """The area under the ROC curve: of the positive class (binary), or macro over classes against the rest.

    Predictions are scores or probabilities (one, or one for each class), references class numbers or 0/1 per label.
    """

    features_taken: ClassVar = ((NUMBER, CLASS), (CLASS_SCORES, CLASS), (CLASS_SCORES, LABEL_SET))

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"auroc": auroc(predictions, references)}
