"""How many dimensions of a latent space say something."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import divide, weights_of
from finetune.evaluation.local_metric import CLASS_SCORES, NUMBER, LocalMetric

THRESHOLD = 0.01  # Burda et al. 2016; models of GPT-2's size are compared at 0.2


def active_units(means: np.ndarray, weights: np.ndarray | None = None, threshold: float = THRESHOLD) -> np.ndarray:
    """Return the number of dimensions whose posterior mean varies by more than `threshold` over rows: () or (R,).

    The variance, over rows, of the mean that the encoder names (Burda, Grosse & Salakhutdinov 2016, section 5).

    Args:
        means: shape (n, latent_dim).
        weights: shape (n,) or (n, R), how often each row counts.
        threshold: a variance.
    """
    weights = weights_of(weights, len(means))
    centred = means.astype(np.float64) - means.mean(axis=0, dtype=np.float64)
    total = weights.sum(axis=0)
    first, second = divide(centred.T @ weights, total), divide((centred**2).T @ weights, total)
    return (second - first**2 > threshold).sum(axis=0).astype(np.float64)


class ActiveUnits(LocalMetric):
    """Latent dimensions in use. Predictions are the posterior means of each row; references are not read."""

    features_taken: ClassVar = ((CLASS_SCORES, NUMBER),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"active_units": active_units(predictions, **options)}
