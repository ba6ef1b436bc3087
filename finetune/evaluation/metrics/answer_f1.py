"""Exact match and F1 of answers, as SQuAD scores them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np

from finetune.evaluation.local_metric import LocalMetric

TEXT = datasets.Value("string")
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """Return an answer as SQuAD compares it: in lower case, without ASCII punctuation and English articles."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact_match(said: str, meant: Sequence[str]) -> float:
    """Return 1 where an answer is one of those meant, normalised; no answer ("") where none is meant."""
    golds = [each for each in meant if normalised(each)] or [""]
    return float(any(normalised(said) == normalised(gold) for gold in golds))


def answer_f1(said: str, meant: Sequence[str]) -> float:
    """Return the greatest F1 of an answer's words with those of an answer meant (Rajpurkar et al. 2016, section 6.1).

    Where either is empty, 1 if both are (SQuAD 2.0, Rajpurkar et al. 2018).
    """
    return max(_f1(said, gold) for gold in [each for each in meant if normalised(each)] or [""])


def _f1(said: str, meant: str) -> float:
    ours, theirs = normalised(said).split(), normalised(meant).split()
    if not ours or not theirs:
        return float(ours == theirs)
    same = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * same / (len(ours) + len(theirs))


class AnswerF1(LocalMetric):
    """Exact match and F1, 0 to 1. Predictions are texts, references lists of texts, empty where there is no answer."""

    features_taken: ClassVar = ((TEXT, datasets.List(TEXT)),)

    def _compute(self, predictions: list, references: list, **options: Any) -> dict[str, Any]:
        return self.values(predictions, references)  # rows of texts are no array

    def values(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        pairs = list(zip(predictions, references, strict=True))
        return {
            "exact_match": float(np.mean([exact_match(*pair) for pair in pairs])),
            "answer_f1": float(np.mean([answer_f1(*pair) for pair in pairs])),
        }
