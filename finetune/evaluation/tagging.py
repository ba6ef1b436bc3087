"""Scores of tags: of the spans that they name, or, where they name none, of words. Rows are drawn, not words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from finetune.evaluation.bootstrap import Measure, bootstrap, with_gaps
from finetune.evaluation.counting import ClassCounts, divide
from finetune.evaluation.metrics.f1 import precision_recall_f1
from finetune.evaluation.metrics.span_f1 import span_counts, span_scores, spans_of
from finetune.task import Scores

Tags = Sequence[Sequence[str | None]]  # a list a row, a tag a word; None where the model said nothing
GAPS = {True: ("span_f1",), False: ("accuracy", "macro_f1")}


def tagging_scores(
    said: Tags,
    meant: Tags,
    names: Sequence[str],
    spans: bool,
    resamples: int,
    costs: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 13,
) -> Scores:
    """Return every score, with 95 % intervals over rows when `resamples` is not 0.

    `n` is the number of rows; for a kind's own scores, its spans (or words).

    Args:
        said, meant: the model's tags and the true ones.
        names: kinds of spans, or tags of words.
        spans: whether tags name spans, as of `spans_of`.
        resamples, seed: of the bootstrap.
        costs: (nats, targets) of each row, each (n,), for `nll`.
    """
    measure = tagging_measure(said, meant, names, spans, costs)
    there = tables(meant, meant, names, spans)[2].sum(axis=0)
    support = {f"{score}/{name}": int(n) for name, n in zip(names, there, strict=True) for score in SCORES}
    return bootstrap(measure, len(meant), resamples, seed, support)


SCORES = ("precision", "recall", "f1")


def tagging_measure(
    said: Tags,
    meant: Tags,
    names: Sequence[str],
    spans: bool,
    costs: tuple[np.ndarray, np.ndarray] | None = None,
) -> Measure:
    """Return the function from weights of rows to every score; arguments as of `tagging_scores`."""
    counted = tables(said, meant, names, spans)
    pairs = [list(zip(*row, strict=True)) for row in zip(said, meant, strict=True)]
    hits = np.array([sum(one == other for one, other in row) for row in pairs])
    words = np.array([len(tags) for tags in meant])

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        counts = ClassCounts(*(table.T @ weights for table in counted))
        scores = span_scores(counts, names) if spans else precision_recall_f1(counts, names)
        scores["accuracy"] = divide(hits @ weights, words @ weights)
        if costs is not None:
            scores["nll"] = divide(costs[0] @ weights, costs[1] @ weights)
        return scores

    return measure


def tables(said: Tags, meant: Tags, names: Sequence[str], spans: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many spans (or words) of each name were right, said and meant in each row; each (n, names)."""
    if spans:
        return span_counts([spans_of(tags) for tags in said], [spans_of(tags) for tags in meant], names)
    number = {name: place for place, name in enumerate(names)}
    right, told, there = (np.zeros((len(meant), len(names))) for _ in range(3))
    for row, (ours, theirs) in enumerate(zip(said, meant, strict=True)):
        for one, other in zip(ours, theirs, strict=True):
            there[row, number[str(other)]] += 1
            right[row, number[str(other)]] += one == other
            if one is not None:
                told[row, number[one]] += 1
    return right, told, there


def lookup_baseline(
    train: tuple[Sequence[Sequence[str]], Tags],
    test: tuple[Sequence[Sequence[str]], Tags],
    said: Tags,
    names: Sequence[str],
    spans: bool,
    resamples: int,
    seed: int = 13,
) -> Scores:
    """Return the scores of the tag that each word had most often in train, with `SCORE_gap`, the model's minus these.

    A word that train does not have gets the tag that most words of train have. Of equally frequent tags the first by
    alphabet is taken. Gaps are paired: on the same drawn rows.

    Args:
        train, test: (words, tags) of the rows.
        said: the model's tags on the test rows.
        names, spans, resamples, seed: as of `tagging_scores`.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    every = Counter[str]()
    for row, tags in zip(*train, strict=True):
        for word, tag in zip(row, tags, strict=True):
            counts[word][str(tag)] += 1
            every[str(tag)] += 1
    usual = {word: _most(each) for word, each in counts.items()}
    otherwise = _most(every)
    rows, meant = test
    rival = [[usual.get(word, otherwise) for word in row] for row in rows]
    ours, theirs = (tagging_measure(tags, meant, names, spans) for tags in (said, rival))
    there = tables(meant, meant, names, spans)[2].sum(axis=0)
    support = {f"{score}/{name}": int(n) for name, n in zip(names, there, strict=True) for score in SCORES}
    return bootstrap(with_gaps(theirs, ours, GAPS[spans]), len(meant), resamples, seed, support)


def _most(counts: Counter[str]) -> str:
    return min(counts, key=lambda tag: (-counts[tag], tag))
