"""BLEU of texts against references, and of generated texts against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np

from finetune.evaluation.counting import weights_of
from finetune.evaluation.local_metric import LocalMetric
from finetune.evaluation.words import Cut

TEXT = datasets.Value("string")
ORDER = 4  # n-grams up to this length


def bleu(texts: Sequence[str], references: Sequence[str], cut: Cut = "13a") -> float:
    """Return corpus BLEU, from 0 to 100, by sacreBLEU (Post 2018, arXiv:1804.08771): 4-grams, cased.

    Args:
        texts, references: as many of each, one reference a text.
        cut: sacreBLEU's tokenizer: 13a and intl need spaces between words, zh and char do not.
    """
    return float(bleu_of(bleu_counts(texts, references, cut)))


def bleu_counts(texts: Sequence[str], references: Sequence[str], cut: Cut = "13a") -> np.ndarray:
    """Return what BLEU is made of, a row a text, shape (n, 10): lengths of text and reference, n-grams right and all.

    Arguments as of `bleu`.
    """
    from sacrebleu.metrics.bleu import BLEU

    # force: that a text ends in " ." says nothing here; every text is cut, generated ones too
    return np.asarray(
        BLEU(tokenize=cut, force=True)._extract_corpus_statistics(list(texts), [list(references)]), dtype=np.float64
    )


def bleu_of(counts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return corpus BLEU, of shape () or (R,).

    Args:
        counts: as `bleu_counts` returns them.
        weights: shape (n,) or (n, R), how often each text counts.
    """
    from sacrebleu.metrics.bleu import BLEU

    sums = counts.T @ weights_of(weights, len(counts))
    columns = sums.reshape(len(sums), -1).T.round().astype(int)  # counts of n-grams, which weights repeat
    found = [
        BLEU.compute_bleu(
            correct=each[2 : 2 + ORDER].tolist(),
            total=each[2 + ORDER :].tolist(),
            sys_len=int(each[0]),
            ref_len=int(each[1]),
        ).score
        for each in columns
    ]
    return np.asarray(found, dtype=np.float64).reshape(sums.shape[1:])


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
    """Corpus BLEU, 0 to 100. Predictions and references are texts; `cut` is sacreBLEU's tokenizer."""

    features_taken: ClassVar = ((TEXT, TEXT),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"bleu": bleu([str(each) for each in predictions], [str(each) for each in references], **options)}
