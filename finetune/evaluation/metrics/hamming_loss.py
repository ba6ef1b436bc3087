"""The share of single labels that are wrong."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import weights_of
from finetune.evaluation.local_metric import LABEL_SET, LocalMetric


def hamming_loss(predictions: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the share of (row, label) cells that are wrong, of shape () or (R,); 0 is best.

    Schapire & Singer 2000, *BoosTexter*.

    Args:
        predictions, references: shape (n, C), 0 or 1 for each label.
        weights: shape (n,) or (n, R), how often each row counts.
    """
    weights = weights_of(weights, len(references))
    return (predictions != references).mean(axis=1) @ weights / weights.sum(axis=0)


class HammingLoss(LocalMetric):
    """The share of single labels that are wrong. Predictions and references are 0/1 for each label."""

    features_taken: ClassVar = ((LABEL_SET, LABEL_SET),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"hamming_loss": hamming_loss(predictions, references)}
