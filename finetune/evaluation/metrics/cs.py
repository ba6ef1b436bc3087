"""The classifier score: how sure a classifier is of each generated row, and how evenly it sees all its classes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.special import xlogy

from finetune.evaluation.counting import weights_of
from finetune.evaluation.local_metric import CLASS_SCORES, LocalMetric


def cs(probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return exp of the mean KL(p(class | row) || p(class)), of shape () or (R,): from 1 to the number of classes.

    Salimans et al. 2016 (arXiv:1606.03498) call it inception score where the classifier is Inception-v3. It looks at
    no real row: a single perfect picture of each class has the highest score.

    Args:
        probabilities: shape (n, classes).
        weights: shape (n,) or (n, R), how often each row counts.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    weights = weights_of(weights, len(probabilities))
    shares = weights / weights.sum(axis=0)
    inner = xlogy(probabilities, probabilities).sum(axis=1) @ shares
    overall = probabilities.T @ shares
    return np.exp(inner - xlogy(overall, overall).sum(axis=0))


class Cs(LocalMetric):
    """The classifier score of predictions and, beside it, of references: rows of probabilities, as many each."""

    features_taken: ClassVar = ((CLASS_SCORES, CLASS_SCORES),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"cs": cs(predictions), "cs_real": cs(references)}
