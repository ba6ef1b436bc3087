"""How much of a generated text is copied from its source."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import datasets
import numpy as np

from finetune.evaluation.counting import divide
from finetune.evaluation.local_metric import LocalMetric
from finetune.evaluation.words import Cut, words

TEXT = datasets.Value("string")


def copying(texts: Sequence[str], sources: Sequence[str], cut: Cut = "13a") -> dict[str, np.ndarray]:
    """Return what each text took over from its source, shape (n,) each; NaN for texts without words.

    `coverage` is the share of its words that lie in fragments of the source, `density` the mean length of the fragment
    that a word lies in (Grusky et al. 2018, arXiv:1804.11283); `novel_bigrams` the share of its pairs of words that
    the source has not (See et al. 2017, arXiv:1704.04368).

    Args:
        texts, sources: as many of each.
        cut: how they are cut into words, see `finetune.evaluation.words`.
    """
    pairs = [(words(text, cut), words(source, cut)) for text, source in zip(texts, sources, strict=True)]
    sizes = np.array([len(said) for said, _ in pairs], dtype=np.float64)
    found = [fragments(said, given) for said, given in pairs]
    twos = [(_twos(said), set(_twos(given))) for said, given in pairs]
    novel = np.array([sum(two not in known for two in said) for said, known in twos], dtype=np.float64)
    return {
        "coverage": divide(np.array([sum(each) for each in found], dtype=np.float64), sizes),
        "density": divide(np.array([sum(size**2 for size in each) for each in found], dtype=np.float64), sizes),
        "novel_bigrams": divide(novel, np.array([len(said) for said, _ in twos], dtype=np.float64)),
    }


def fragments(said: Sequence[str], source: Sequence[str]) -> list[int]:
    """Return the lengths of the longest runs of the source that a text is made of, taken greedily from the left."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(source):
        places.setdefault(word, []).append(place)
    found, start = [], 0
    while start < len(said):
        longest = 0
        for place in places.get(said[start], ()):
            size = 1
            while (
                start + size < len(said) and place + size < len(source) and said[start + size] == source[place + size]
            ):
                size += 1
            longest = max(longest, size)
        found += [longest] if longest else []
        start += max(longest, 1)
    return found


def _twos(given: Sequence[str]) -> list[tuple[str, str]]:
    return list(pairwise(given))


class Copying(LocalMetric):
    """Means of coverage, density and novel_bigrams. Predictions are texts, references their sources."""

    features_taken: ClassVar = ((TEXT, TEXT),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        found = copying([str(each) for each in predictions], [str(each) for each in references], **options)
        return {name: _mean(each) for name, each in found.items()}


def _mean(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else float("nan")
