"""ROUGE: words, pairs of words, and the longest common subsequence that generated texts share with references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import numpy as np

from finetune.evaluation.local_metric import LocalMetric
from finetune.evaluation.words import Cut, words

TEXT = datasets.Value("string")
NAMES = ("rouge1", "rouge2", "rougeL")


def rouge(texts: Sequence[str], references: Sequence[str], cut: Cut = "13a") -> dict[str, np.ndarray]:
    """Return the F1 of ROUGE-1, ROUGE-2 and ROUGE-L of each text, from 0 to 100, shape (n,) each (Lin 2004, W04-1013).

    The score of a set of texts is their mean. Words are in lower case and not stemmed; ROUGE-L takes a text as one
    sentence. For English that is what the package rouge-score says without its stemmer; unlike there, words may be of
    any script.

    Args:
        texts, references: as many of each, one reference a text.
        cut: how they are cut into words, see `finetune.evaluation.words`.
    """
    found = np.array(
        [_of_pair(words(text, cut), words(meant, cut)) for text, meant in zip(texts, references, strict=True)]
    )
    return dict(zip(NAMES, 100 * found.reshape(-1, len(NAMES)).T, strict=True))


def _of_pair(said: list[str], meant: list[str]) -> tuple[float, float, float]:
    return (
        _shared(said, meant, 1),
        _shared(said, meant, 2),
        _f1(longest_common(said, meant), len(said), len(meant)),
    )


def _shared(said: list[str], meant: list[str], size: int) -> float:
    ours, theirs = (Counter(zip(*(each[start:] for start in range(size)), strict=False)) for each in (said, meant))
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        corner = 0
        for place, each in enumerate(other, start=1):
            above = row[place]
            row[place] = corner + 1 if word == each else max(above, row[place - 1])
            corner = above
    return row[-1]


def _f1(both: int, said: int, meant: int) -> float:
    return 2 * both / (said + meant) if both else 0.0


class Rouge(LocalMetric):
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 100. Predictions and references are texts; `cut` as of `rouge`."""

    features_taken: ClassVar = ((TEXT, TEXT),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        found = rouge([str(each) for each in predictions], [str(each) for each in references], **options)
        return {name: each.mean() for name, each in found.items()}
