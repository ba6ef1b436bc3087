"""Scores of answers that are found in a text, and from when on no answer is the better one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from finetune.evaluation.bootstrap import Measure, bootstrap, with_gaps
from finetune.evaluation.counting import divide
from finetune.evaluation.metrics.answer_f1 import answer_f1, exact_match, normalised
from finetune.task import Scores

GAPS = ("exact_match", "answer_f1")
Meant = Sequence[Sequence[str]]  # the answers of each row; [] where the text has none


def answering_scores(
    said: Sequence[str], meant: Meant, resamples: int, costs: np.ndarray | None = None, seed: int = 13
) -> Scores:
    """Return exact match and F1, 0 to 1, with 95 % intervals over rows when `resamples` is not 0.

    Where some rows have no answer, also apart: `answered_…` of rows that have one, and `no_answer_accuracy`.

    Args:
        said: an answer a row, "" for none.
        meant: those of which one is right.
        resamples, seed: of the bootstrap.
        costs: shape (n,), nats of the targets of each row, for `nll`.
    """
    there = sum(bool(each) for each in meant)
    support = {f"answered_{name}": there for name in GAPS} | {"no_answer_accuracy": len(meant) - there}
    return bootstrap(answering_measure(said, meant, costs), len(meant), resamples, seed, support)


def answering_measure(said: Sequence[str], meant: Meant, costs: np.ndarray | None = None) -> Measure:
    """Return the function from weights of rows to every score; arguments as of `answering_scores`."""
    pairs = list(zip(said, meant, strict=True))
    exact = np.array([exact_match(*pair) for pair in pairs])
    f1 = np.array([answer_f1(*pair) for pair in pairs])
    there = np.array([bool(each) for each in meant])

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        scores = {"exact_match": exact @ weights / weights.sum(axis=0), "answer_f1": f1 @ weights / weights.sum(axis=0)}
        if not there.all():
            some, none = there @ weights, ~there @ weights
            scores["answered_exact_match"] = divide((exact * there) @ weights, some)
            scores["answered_answer_f1"] = divide((f1 * there) @ weights, some)
            scores["no_answer_accuracy"] = divide((exact * ~there) @ weights, none)
        if costs is not None:
            scores["nll"] = costs @ weights / weights.sum(axis=0)
        return scores

    return measure


def best_threshold(said: Sequence[str], gaps: np.ndarray, meant: Meant) -> float:
    """Return the gap beyond which no answer scores better: where mean F1 over these rows is greatest.

    As the search of SQuAD 2.0's script (Rajpurkar et al. 2018); of equally good places the one nearest to 0, in the
    middle between two rows.

    Args:
        said: the best answer of each row.
        gaps: (n,), by how much no answer has the greater score.
        meant: the answers of each row.
    """
    order = np.argsort(gaps, kind="stable")
    answered = np.array([answer_f1(said[row], meant[row]) for row in order])
    silent = np.array([float(not meant[row]) for row in order])
    # With k rows answered: those of the k least gaps; equal gaps are answered alike.
    totals = np.concatenate([[0.0], np.cumsum(answered)]) + silent.sum() - np.concatenate([[0.0], np.cumsum(silent)])
    ordered = gaps[order]
    edges = [ordered[0] - 1.0, *((ordered[:-1] + ordered[1:]) / 2), ordered[-1] + 1.0]
    real = [k for k in range(len(totals)) if k in (0, len(gaps)) or ordered[k - 1] < ordered[k]]
    best = max(totals[k] for k in real)
    return float(min((edges[k] for k in real if totals[k] >= best - 1e-9), key=abs))


def overlap_answer(question: str, passage: str) -> str:
    """Return the guess of a rule that reads nothing: a name or number in the sentence most like the question.

    It is the longest run of capitalised words or numbers that the question does not hold, of the sentence that shares
    most words with the question; the sentence itself where it has none.
    """
    asked = set(normalised(question).split())
    sentences = [each for each in re.split(r"(?<=[.!?])\s+", passage) if each.strip()] or [passage]
    shared = [len(asked & set(normalised(each).split())) for each in sentences]
    sentence = sentences[int(np.argmax(shared))]
    runs = re.findall(r"(?:[A-Z][\w'-]*|\d[\d.,]*)(?:\s+(?:[A-Z][\w'-]*|\d[\d.,]*))*", sentence)
    new = [run for run in runs if not set(normalised(run).split()) <= asked]
    return max(new, key=len).rstrip(".,") if new else sentence


def rival_scores(
    rivals: dict[str, Sequence[str]], said: Sequence[str], meant: Meant, resamples: int, seed: int = 13
) -> dict[str, Scores]:
    """Return the scores of each rival's answers and, as `SCORE_gap`, the model's minus these, paired."""
    model = answering_measure(said, meant)
    return {
        name: bootstrap(with_gaps(answering_measure(each, meant), model, GAPS), len(meant), resamples, seed)
        for name, each in rivals.items()
    }
