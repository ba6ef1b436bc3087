"""Precision, recall and F1 of spans: a span counts where its type, its first word and its last word are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import datasets
import numpy as np

from finetune.evaluation.counting import ClassCounts
from finetune.evaluation.local_metric import LocalMetric
from finetune.evaluation.metrics.f1 import precision_recall_f1

TAGS = datasets.List(datasets.Value("string"))
OUTSIDE = "O"
OPENS = ("B", "S", "U")  # with IOB2 also IOBES and BILOU
CLOSES = ("E", "L", "S", "U")


class Span(NamedTuple):
    """A span of words: `start` is its first, `end` one past its last."""

    kind: str
    start: int
    end: int


def spans_of(tags: Sequence[str | None]) -> list[Span]:
    """Return the spans of tags in IOB1, IOB2, IOBES or BILOU, in their order.

    As conlleval (Tjong Kim Sang & Buchholz 2000) and seqeval's default mode: a span goes on while prefix and type let
    it, and a tag inside that continues nothing opens one. A tag that is neither O nor has a prefix is outside.
    """
    found: list[Span] = []
    before, kind, start = OUTSIDE, "", 0  # of the span that is open, if `before` is not O
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, name = (tag or OUTSIDE).partition("-")
        prefix = prefix if name else OUTSIDE
        goes_on = prefix not in (OUTSIDE, *OPENS) and before not in (OUTSIDE, *CLOSES) and name == kind
        if before != OUTSIDE and not goes_on:
            found.append(Span(kind, start, place))
        if prefix != OUTSIDE and not goes_on:
            kind, start = name, place
        before = prefix
    return found


def span_counts(
    said: Sequence[Sequence[Span]], meant: Sequence[Sequence[Span]], kinds: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many spans of each kind were right, said and meant in each row; each of shape (n, kinds)."""
    number = {kind: place for place, kind in enumerate(kinds)}
    right, told, there = (np.zeros((len(meant), len(kinds))) for _ in range(3))
    for row, (ours, theirs) in enumerate(zip(said, meant, strict=True)):
        for table, spans in ((right, set(ours) & set(theirs)), (told, ours), (there, theirs)):
            for span in spans:
                table[row, number[span.kind]] += 1
    return right, told, there


def span_scores(counts: ClassCounts, kinds: Sequence[str]) -> dict[str, np.ndarray]:
    """Return `span_f1`, `span_precision`, `span_recall` over all spans, macro and weighted ones, and those of a kind.

    Ramshaw & Marcus 1995; conlleval. Macro F1 is over the kinds that have spans (see `precision_recall_f1`); seqeval's
    also counts a kind that was only said, as 0.
    """
    every = precision_recall_f1(counts, kinds)
    first = {f"span_{name}": every.pop(f"micro_{name}") for name in ("f1", "precision", "recall")}
    return first | every


class SpanF1(LocalMetric):
    """Precision, recall and F1 of spans, over all, macro, weighted and of each kind, from tags in IOB2 and its kin.

    Predictions and references are lists of tags, one list a row.
    """

    features_taken: ClassVar = ((TAGS, TAGS),)

    def _compute(self, predictions: list, references: list, **options: Any) -> dict[str, Any]:
        values = self.values(predictions, references)  # rows of tags are no array
        return {name: float(value) for name, value in values.items() if np.isfinite(value)}

    def values(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        said, meant = ([spans_of(tags) for tags in rows] for rows in (predictions, references))
        kinds = sorted({span.kind for spans in (*said, *meant) for span in spans})
        counts = ClassCounts(*(table.sum(axis=0) for table in span_counts(said, meant, kinds)))
        return span_scores(counts, kinds)
