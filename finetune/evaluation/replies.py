"""Scores of replies that a model writes: against those of the rows, and by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.evaluation.bootstrap import bootstrap
from finetune.evaluation.generation import generation_scores
from finetune.evaluation.words import Cut, words
from finetune.task import Score, Scores

REPEATED = 4  # words


def reply_scores(
    texts: Sequence[str], references: Sequence[str], stopped: np.ndarray, cut: Cut, resamples: int, seed: int = 13
) -> Scores:
    """Return the scores of `generation_scores` and of replies by themselves, with 95 % intervals over replies.

    `exact_match`, the share of replies that are the reference but for white space and case; `stopped`, of those that
    end by themselves; `repetition`, the share of runs of 4 words in a reply that it holds already (Welleck et al. 2020,
    arXiv:1908.04319), mean; `distinct_1` and `distinct_2`, different words and pairs of words over all (Li et al. 2016,
    arXiv:1510.03055), of all replies together and so without an interval.

    Args:
        texts, references: as many of each.
        stopped: shape (n,), whether each ended before it had to.
        cut: how texts are cut into words.
        resamples, seed: of the bootstrap.
    """
    cuts = [words(text, cut) for text in texts]
    rows = {
        "exact_match": np.array([_plain(text) == _plain(meant) for text, meant in zip(texts, references, strict=True)]),
        "stopped": stopped,
        "repetition": np.array([repetition(each) for each in cuts]),
    }

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values.astype(float) @ weights / weights.sum(axis=0) for name, values in rows.items()}

    shown = {f"distinct_{size}": Score(distinct(cuts, size), n=len(texts)) for size in (1, 2)}
    own = bootstrap(measure, len(texts), resamples, seed)
    return generation_scores(texts, references, None, cut, resamples, seed) | own | shown


def repetition(text: Sequence[str], size: int = REPEATED) -> float:
    """Return the share of a text's runs of `size` words that it holds already; 0 for a shorter text."""
    runs = list(zip(*(text[start:] for start in range(size)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def distinct(texts: Sequence[Sequence[str]], size: int) -> float:
    """Return different runs of `size` words over all of them, in all texts together; 0 where there is none."""
    runs = [run for text in texts for run in zip(*(text[start:] for start in range(size)), strict=False)]
    return len(set(runs)) / len(runs) if runs else 0.0


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
