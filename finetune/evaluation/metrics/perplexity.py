"""The perplexity of text, a token."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.local_metric import CLASS, NUMBER, LocalMetric
from finetune.evaluation.metrics.nll import nll


def perplexity(sums: np.ndarray, tokens: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return exp(nats per token), of shape () or (R,). Jelinek et al. 1977.

    Comparable between models only when they cut text into the same tokens; `bits_per_byte` always is. NaN beyond the
    greatest float (709 nats per token).

    Args:
        sums, tokens, weights: as of `nll`.
    """
    mean = nll(sums, tokens, weights)
    return np.exp(np.where(mean < np.log(np.finfo(np.float64).max), mean, np.nan))


class Perplexity(LocalMetric):
    """exp(nats per token). Predictions are each input's summed nats, references its number of target tokens."""

    features_taken: ClassVar = ((NUMBER, CLASS),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"perplexity": perplexity(predictions, references)}
