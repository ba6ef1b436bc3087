"""The negative log-likelihood of the labels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import weights_of
from finetune.evaluation.local_metric import CLASS, CLASS_SCORES, LABEL_SET, LocalMetric


def log_loss(logits: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the mean negative log-likelihood of the labels in nats, of shape () or (R,).

    A proper score: Good 1952, *Rational decisions*. For sets of labels, a row's loss is the mean over its labels.

    Args:
        logits: shape (n, C); log-probabilities are logits too.
        references: shape (n,), class numbers; or (n, C), 0/1 for each label.
        weights: shape (n,) or (n, R), how often each row counts.
    """
    weights = weights_of(weights, len(references))
    return losses(logits, references) @ weights / weights.sum(axis=0)


def losses(logits: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return each row's negative log-likelihood in nats, shape (n,)."""
    logits = logits.astype(np.float64)
    if references.ndim == 2:
        return (np.logaddexp(0.0, logits) - references * logits).mean(axis=1)
    highest = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - highest).sum(axis=1)) + highest[:, 0]
    return total - np.take_along_axis(logits, references.astype(np.int64)[:, None], axis=1)[:, 0]


class LogLoss(LocalMetric):
    """The mean negative log-likelihood of the labels, in nats, called `nll` among the scores.

    Predictions are logits for each class, references class numbers or 0/1 for each label.
    """

    features_taken: ClassVar = ((CLASS_SCORES, CLASS), (CLASS_SCORES, LABEL_SET))

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"nll": log_loss(predictions, references)}
