"""From the parts that a model points at in each input back to one answer a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.tasks.question_inputs import text_between

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.task import Answers

WORST = -1e8  # scores below are of no part of the context


@dataclass(frozen=True)
class Part:
    """A part of a context that may be the answer."""

    text: str
    start: int  # characters
    end: int
    score: float  # logits
    probability: float  # among the parts that were looked at, and no answer


@dataclass(frozen=True)
class Found:
    """The answers of rows that have inputs, in their order."""

    rows: list[int]  # their numbers
    parts: list[list[Part]]  # the best of each
    gaps: np.ndarray  # by how much no answer scores better than the best part
    nothing: list[float]  # the probability of no answer
    meant: list[list[str]]  # the true answers of each; [] where rows have no such column

    @property
    def best(self) -> list[str]:
        """The best answer of each row, whatever is said for none; "" where a context has no token."""
        return [parts[0].text if parts else "" for parts in self.parts]


def by_row(answers: Answers, inputs: Dataset, count: int) -> Found:
    """Return the best parts over all windows of each row. No answer scores as in the window that most denies it.

    Probabilities are the softmax over the parts that the windows gave, and no answer: of parts of one place in two
    windows the better counts.
    """
    scores: dict[int, dict[tuple[int, int], float]] = {}
    none: dict[int, float] = {}
    contexts: dict[int, str] = {}
    golds: dict[int, list[str]] = {}
    meant = inputs["answers"] if "answers" in inputs.column_names else [None] * len(inputs)
    columns = (inputs[name] for name in ("row", "begins", "starts", "ends", "context"))
    for place, (row, begins, starts, ends, context, gold) in enumerate(zip(*columns, meant, strict=True)):
        contexts.setdefault(row, context)
        golds.setdefault(row, gold or [])
        none[row] = min(none.get(row, np.inf), float(answers["none"][place]))
        known = scores.setdefault(row, {})
        triples = zip(*(answers[name][place].tolist() for name in ("start", "end", "score")), strict=True)
        for first, last, score in triples:
            if score > WORST:
                key = (starts[first - begins], ends[last - begins])
                known[key] = max(known.get(key, -np.inf), score)
    rows = sorted(scores)
    parts, nothing = [], []
    for row in rows:
        ordered = sorted(scores[row].items(), key=lambda each: (-each[1], each[0]))
        every = np.array([none[row], *(score for _, score in ordered)])
        p = np.exp(every - every.max())
        p = p / p.sum()
        nothing.append(float(p[0]))
        named = [
            Part(*text_between(contexts[row], *place), score, float(share))
            for (place, score), share in zip(ordered, p[1:], strict=True)
        ]
        parts.append([part for part in named if part.text][:count])
    gaps = np.array([none[row] - (each[0].score if each else WORST) for row, each in zip(rows, parts, strict=True)])
    return Found(rows, parts, gaps, nothing, [golds[row] for row in rows] if meant[0] is not None else [])


def nll_of(answers: Answers, inputs: Dataset) -> np.ndarray:
    """Return the nats of each row's targets, the mean over its windows."""
    owner = np.unique(np.asarray(inputs["row"][:]), return_inverse=True)[1]
    return np.bincount(owner, answers["nll"]) / np.bincount(owner)


def prediction_table(
    found: Found, rows: Dataset, question: str, context: str, known: bool
) -> Callable[[list[str], bool], Dataset]:
    """Return the function from (answers, whether there may be none) to one row a row.

    Columns: question, text (the context), prediction ("" for none), start and end in characters (null for none), score,
    no_answer (by how much none scores better) and best, a list of {text, start, end, score}; target where it is known.
    """
    from datasets import Dataset as Table

    def table(said: list[str], can_be_none: bool) -> Dataset:
        kept = rows.select(found.rows)
        first = [parts[0] if parts and text else None for parts, text in zip(found.parts, said, strict=True)]
        made: dict[str, list[Any]] = {
            "row_id": list(kept["row_id"]),
            "question": list(kept[question]),
            "text": list(kept[context]),
            "prediction": said,
            "start": [part and part.start for part in first],
            "end": [part and part.end for part in first],
            "score": [
                none if part is None else part.probability for part, none in zip(first, found.nothing, strict=True)
            ],
        }
        if can_be_none:
            made["no_answer"] = found.gaps.tolist()
        if known:
            made["target"] = found.meant
        made["best"] = [
            [{"text": p.text, "start": p.start, "end": p.end, "score": p.probability} for p in parts]
            for parts in found.parts
        ]
        return Table.from_dict(made)

    return table
