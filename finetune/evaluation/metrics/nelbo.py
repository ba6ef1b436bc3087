"""The negative evidence lower bound, in nats a row."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import divide, weights_of
from finetune.evaluation.local_metric import NUMBER, LocalMetric


def nelbo(nats: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the mean of what each row costs, of shape () or (R,).

    Args:
        nats: shape (n,): of a row's reconstruction and divergence together, or of one of the two.
        weights: shape (n,) or (n, R), how often each row counts.
    """
    weights = weights_of(weights, len(nats))
    return divide(nats.astype(np.float64) @ weights, weights.sum(axis=0))


class Nelbo(LocalMetric):
    """Nats a row. Predictions are each row's reconstruction loss, references its divergence from the prior."""

    features_taken: ClassVar = ((NUMBER, NUMBER),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"nelbo": nelbo(predictions + references)}
