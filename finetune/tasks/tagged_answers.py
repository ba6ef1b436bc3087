"""From the answers to tokens back to words and spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.evaluation.metrics.span_f1 import OUTSIDE, spans_of
from finetune.tasks.tagged_inputs import located

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.task import Answers

Tag = str | None


def numbers_of(inputs: Dataset) -> list[int]:
    """Return the numbers of the rows that have inputs, in their order."""
    return sorted(set(inputs["row"][:]))


def by_row(answers: Answers, inputs: Dataset, labels: Sequence[str]) -> tuple[list[list[Tag]], list[list[float]]]:
    """Return the tag of each word of each row that has inputs, and its probability.

    A word that no input has a token of is outside of all spans, with probability 0; None where O is no label.
    """
    nothing = OUTSIDE if OUTSIDE in labels else None
    rows: dict[int, tuple[list[Tag], list[float]]] = {}
    for place, (row, words, numbers, tokens) in enumerate(
        zip(inputs["row"], inputs["words"], inputs["numbers"], inputs["places"], strict=True)
    ):
        tags, sure = rows.setdefault(row, ([nothing] * words, [0.0] * words))
        for word, token in zip(numbers, tokens, strict=True):
            tags[word] = labels[int(answers["tag"][place, token])]
            sure[word] = float(answers["sure"][place, token])
    found = [rows[row] for row in sorted(rows)]
    return [tags for tags, _ in found], [sure for _, sure in found]


def true_tags(inputs: Dataset, labels: Sequence[str]) -> list[list[Tag]]:
    """Return the true tag of each word of each row that has inputs."""
    rows: dict[int, list[Tag]] = {}
    for row, tags in zip(inputs["row"], inputs["tags"], strict=True):
        if row not in rows:  # the first input of a row has them
            rows[row] = [labels[tag] for tag in tags]
    return [rows[row] for row in sorted(rows)]


def prediction_table(
    answers: Answers,
    inputs: Dataset,
    rows: Dataset,
    words: str,
    text: str | None,
    labels: Sequence[str],
    spans: bool,
) -> Dataset:
    """Return one row a row: text, words, prediction (a tag a word), spans with offsets in the text, score, target.

    The score of a span is the mean probability of its words' tags, that of a row the least one.
    """
    from datasets import Dataset as Table

    kept = rows.select(numbers_of(inputs))
    said, sure = by_row(answers, inputs, labels)
    given = kept[text][:] if text is not None else [None] * len(kept)
    laid = [located(*each) for each in zip(kept[words][:], given, kept["row_id"][:], strict=True)]
    table: dict[str, list[Any]] = {
        "row_id": list(kept["row_id"]),
        "text": [each for each, _ in laid],
        "words": list(kept[words]),
        "prediction": said,
        "score": [min(each, default=0.0) for each in sure],
    }
    if "tags" in inputs.column_names:
        table["target"] = true_tags(inputs, labels)
    if spans:
        table["spans"] = [named(*each) for each in zip(said, sure, laid, strict=True)]
    return Table.from_dict(table)


def named(tags: Sequence[Tag], sure: Sequence[float], laid: tuple[str, list[tuple[int, int]]]) -> list[dict[str, Any]]:
    """Return the spans of a row as {type, text, start, end, score}; start and end in characters of its text."""
    text, places = laid
    found = []
    for span in spans_of(tags):
        start, end = places[span.start][0], places[span.end - 1][1]
        score = float(np.mean(sure[span.start : span.end]))
        found.append({"type": span.kind, "text": text[start:end], "start": start, "end": end, "score": score})
    return found
