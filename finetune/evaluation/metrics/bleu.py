"""BLEU of texts against references, and of generated texts against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np

from finetune.evaluation.local_metric import LocalMetric

TEXT = datasets.Value("string")


def bleu(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return corpus BLEU, from 0 to 100, by sacreBLEU (Post 2018, arXiv:1804.08771): 4-grams, 13a tokens, cased.

    Args:
        texts, references: as many of each, one reference a text.
    """
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU().corpus_score(list(texts), [list(references)]).score)


def self_bleu(texts: Sequence[str]) -> float:
    """Return the mean BLEU-4 of each text against all others (Zhu et al. 2018, arXiv:1802.01886), from 0 to 100.

    Higher is less varied: 100 when all are alike. It grows with the number of texts, so it is compared at one number.
    """
    from sacrebleu.metrics.bleu import BLEU

    if len(texts) < 2:
        return float("nan")
    measure = BLEU(effective_order=True)
    others = [[*texts[:place], *texts[place + 1 :]] for place in range(len(texts))]
    return float(np.mean([measure.sentence_score(text, rest).score for text, rest in zip(texts, others, strict=True)]))


class Bleu(LocalMetric):
    """Corpus BLEU, 0 to 100. Predictions and references are texts."""

    features_taken: ClassVar = ((TEXT, TEXT),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"bleu": bleu([str(each) for each in predictions], [str(each) for each in references])}
