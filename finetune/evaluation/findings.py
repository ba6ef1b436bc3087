"""What the predictions of a run tell: mistakes, confusions, calibration, and where length matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from finetune.evaluation.metrics.answer_f1 import exact_match
from finetune.evaluation.metrics.confusion_matrix import confusion_matrix
from finetune.evaluation.metrics.span_f1 import spans_of

SHOWN_TEXT = 420  # characters of a text that the report shows
MISTAKES = 20
CONFUSIONS = 20
SHOWN_SPANS = 8  # of a row that the report shows
QUANTILES = 5


@dataclass(frozen=True)
class Predictions:
    """predictions.parquet, column by column."""

    columns: dict[str, list[Any]]

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read the file."""
        from pyarrow import parquet

        return cls(parquet.read_table(path).to_pydict())

    @property
    def kind(self) -> str:
        """Say which: "written", "language", "regression", "multi", "single", "tags", "answers"; else "unknown"."""
        if "generated" in self.columns:
            return "written" if "nll" in self.columns else "unknown"
        if "nll" in self.columns:
            return "language"
        if not self.columns.get("target"):
            return "unknown"
        if "words" in self.columns:
            return "tags"
        if "question" in self.columns:
            return "answers"
        first = self.columns["target"][0]
        return "multi" if isinstance(first, list) else "single" if isinstance(first, str) else "regression"

    def matrix(self, labels: Sequence[str]) -> np.ndarray:
        """Return the confusion matrix of single labels, true classes down."""
        number = {label: place for place, label in enumerate(labels)}
        said, meant = (np.array([number[name] for name in self.columns[key]]) for key in ("prediction", "target"))
        return confusion_matrix(said, meant, len(labels))

    def right(self) -> np.ndarray:
        """Return whether each row's answer is wholly right."""
        pairs = list(zip(self.columns["prediction"], self.columns["target"], strict=True))
        if self.kind == "answers":
            return np.array([exact_match(said, meant) > 0 for said, meant in pairs])
        return np.array([_same(said, meant, self.kind == "tags") for said, meant in pairs])

    def worst(self) -> list[dict[str, Any]]:
        """Return the rows that the model was surest of and wrong about, worst first."""
        if self.kind in ("language", "written"):
            cost = np.array(self.columns["nll"]) / np.maximum(self.columns["tokens"], 1)
        elif self.kind == "regression":
            cost = np.abs(np.array(self.columns["prediction"]) - np.array(self.columns["target"]))
        else:
            cost = np.where(self.right(), -1.0, np.array(self.columns["score"]))
        shown = MISTAKES // 2 if self.kind in ("language", "written") else MISTAKES
        order = [int(place) for place in np.argsort(-cost, kind="stable")[:shown] if cost[place] > 0]
        return [{**self._row(place), "cost": float(cost[place])} for place in order]

    def first(self) -> list[dict[str, Any]]:
        """Return the first rows of what was written, as they come."""
        return [self._row(place) for place in range(min(MISTAKES // 2, len(self.columns["row_id"])))]

    def _row(self, place: int) -> dict[str, Any]:
        row = {name: values[place] for name, values in self.columns.items() if not name.startswith("p/")}
        for name in ("text", "pair", "source", "generated", "target"):
            if isinstance(row.get(name), str) and len(row[name]) > SHOWN_TEXT:
                row[name] = row[name][:SHOWN_TEXT] + " …"
        if self.kind == "answers":
            row |= {"text": f"{row['question']}\n\n{row['text']}", "prediction": row["prediction"] or "(none)"}
            row["target"] = list(dict.fromkeys(row["target"]))
        if self.kind == "tags":
            row |= {name: ", ".join(told[:SHOWN_SPANS]) or "(none)" for name, told in self._differing(place).items()}
        for name in ("target", "prediction"):
            if isinstance(row.get(name), list):
                row[name] = ", ".join(row[name]) or "(none)"
        return row

    def _differing(self, place: int) -> dict[str, list[str]]:
        """Return the spans of a row that were missed, and those that were wrongly said; without spans, its words."""
        words, held = self.columns["words"][place], {}
        for name in ("target", "prediction"):
            tags, told = self.columns[name][place], dict[Any, str]()
            if "spans" in self.columns:
                told |= {span: f"{' '.join(words[span.start : span.end])} → {span.kind}" for span in spans_of(tags)}
            else:
                told |= {(number, tag): f"{words[number]} → {tag}" for number, tag in enumerate(tags)}
            held[name] = told
        shared = held["target"].keys() & held["prediction"].keys()
        return {name: [text for key, text in told.items() if key not in shared] for name, told in held.items()}

    def reliability(self) -> tuple[list[dict[str, float]], float]:
        """Return bins of confidence, and the expected calibration error over ten equal bins.

        Guo et al. 2017 (arXiv:1706.04599), section 2.
        """
        scores, right = np.array(self.columns["score"]), self.right()
        owner = np.minimum((scores * 10).astype(int), 9)
        bins = []
        for number in np.unique(owner):
            held = owner == number
            bins.append({"confidence": float(scores[held].mean()), "share": float(held.mean()), **_share(right[held])})
        return bins, sum(abs(each["confidence"] - each["accuracy"]) * each["share"] for each in bins)

    def by_length(self) -> list[dict[str, Any]]:
        """Return the share of right rows in fifths of text length (characters); [] for too few distinct lengths."""
        parts = [self.columns[name] for name in ("text", "pair") if name in self.columns]
        if not parts:  # images
            return []
        lengths = np.array([sum(map(len, texts)) for texts in zip(*parts, strict=True)])
        edges = np.unique(np.quantile(lengths, np.linspace(0, 1, QUANTILES + 1)).round())
        if len(edges) < 3:
            return []
        owner = np.clip(np.searchsorted(edges, lengths, side="left") - 1, 0, len(edges) - 2)
        right = self.right()
        return [
            {"name": f"{low:.0f}–{high:.0f}", **_share(right[owner == number])}
            for number, (low, high) in enumerate(pairwise(edges))
            if (owner == number).any()
        ]


def confusions(matrix: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the most frequent confusions: how many rows of which class were taken for which other one."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    places = [(int(cell) // len(labels), int(cell) % len(labels)) for cell in order if wrong.flat[cell]]
    return [
        {
            "target": labels[row],
            "prediction": labels[column],
            "count": int(wrong[row, column]),
            "share": wrong[row, column] / matrix[row].sum(),
        }
        for row, column in places
    ]


def _same(said: Any, meant: Any, ordered: bool = False) -> bool:
    return set(said) == set(meant) if isinstance(meant, list) and not ordered else said == meant


def _share(right: np.ndarray) -> dict[str, float]:
    """Return the share of right rows with Wilson's 95 % interval (Wilson 1927)."""
    n, share, z = len(right), float(right.mean()), 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return {"accuracy": share, "low": float(middle - half), "high": float(middle + half)}
