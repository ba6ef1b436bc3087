"""chrF: characters that generated texts share with references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np

from finetune.evaluation.counting import divide, weights_of
from finetune.evaluation.local_metric import LocalMetric

TEXT = datasets.Value("string")
BETA = 2.0  # recall weighs four times as much as precision


def chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return corpus chrF2, from 0 to 100 (Popović 2015, W15-3049): 1- to 6-grams of characters, spaces left out.

    It needs no words, so it does for every script.

    Args:
        texts, references: as many of each, one reference a text.
    """
    return float(chrf_of(chrf_counts(texts, references)))


def chrf_counts(texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return what chrF is made of, a row a text, shape (n, 6, 3): n-grams of text, of reference and of both, by order.

    Counted by sacreBLEU. Arguments as of `chrf`.
    """
    from sacrebleu.metrics.chrf import CHRF

    found = CHRF(beta=int(BETA))._extract_corpus_statistics(list(texts), [list(references)])
    return np.asarray(found, dtype=np.float64).reshape(len(texts), -1, 3)


def chrf_of(counts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return corpus chrF2, of shape () or (R,); orders that texts or references are too short for are left out.

    Args:
        counts: as `chrf_counts` returns them.
        weights: shape (n,) or (n, R), how often each text counts.
    """
    sums = np.tensordot(counts, weights_of(weights, len(counts)), axes=(0, 0))  # (6, 3) or (6, 3, R)
    said, meant, both = sums[:, 0], sums[:, 1], sums[:, 2]
    held = (said > 0) & (meant > 0)
    orders = held.sum(axis=0)
    precision = divide(np.where(held, divide(both, said), 0.0).sum(axis=0), orders)
    recall = divide(np.where(held, divide(both, meant), 0.0).sum(axis=0), orders)
    score = divide((1 + BETA**2) * precision * recall, BETA**2 * precision + recall)
    return 100 * np.where(np.isfinite(score), score, 0.0)


class Chrf(LocalMetric):
    """Corpus chrF2, 0 to 100. Predictions and references are texts."""

    features_taken: ClassVar = ((TEXT, TEXT),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"chrf": chrf([str(each) for each in predictions], [str(each) for each in references])}
