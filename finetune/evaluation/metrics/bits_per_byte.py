"""The negative log-likelihood of text, a byte: comparable between tokenizers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.local_metric import CLASS, NUMBER, LocalMetric
from finetune.evaluation.metrics.nll import nll


def bits_per_byte(sums: np.ndarray, text_bytes: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return bits per UTF-8 byte of the text that the targets stand for, of shape () or (R,).

    Gao et al. 2020 (arXiv:2101.00027), section 3.1: it does not depend on how a tokenizer cuts.

    Args:
        sums: shape (n,), the negative log-likelihood of each input's targets, in nats.
        text_bytes: shape (n,), the bytes that they stand for.
        weights: shape (n,) or (n, R), how often each input counts.
    """
    return nll(sums, text_bytes, weights) / np.log(2.0)


class BitsPerByte(LocalMetric):
    """Bits per UTF-8 byte. Predictions are each input's summed nats, references its number of bytes."""

    features_taken: ClassVar = ((NUMBER, CLASS),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"bits_per_byte": bits_per_byte(predictions, references)}
