"""The negative log-likelihood of text, a token."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import divide, weights_of
from finetune.evaluation.local_metric import CLASS, NUMBER, LocalMetric


def nll(sums: np.ndarray, tokens: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return nats per token over all tokens, of shape () or (R,).

    Sums over sums: never a mean of batch or row means, so that it depends on no batch size and no padding.

    Args:
        sums: shape (n,), the negative log-likelihood of each input's targets, in nats.
        tokens: shape (n,), how many targets that is.
        weights: shape (n,) or (n, R), how often each input counts.
    """
    weights = weights_of(weights, len(sums))
    return divide(sums.astype(np.float64) @ weights, tokens.astype(np.float64) @ weights)


class Nll(LocalMetric):
    """Nats per token. Predictions are each input's summed nats, references its number of target tokens."""

    features_taken: ClassVar = ((NUMBER, CLASS),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"nll": nll(predictions, references)}
