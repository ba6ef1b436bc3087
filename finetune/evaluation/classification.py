"""Scores of a classifier or of a regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import softmax

from finetune.evaluation.bootstrap import Measure, bootstrap
from finetune.evaluation.counting import class_counts
from finetune.evaluation.metrics.accuracy import accuracy
from finetune.evaluation.metrics.auroc import auroc
from finetune.evaluation.metrics.average_precision import average_precision
from finetune.evaluation.metrics.f1 import precision_recall_f1
from finetune.evaluation.metrics.hamming_loss import hamming_loss
from finetune.evaluation.metrics.log_loss import losses
from finetune.evaluation.metrics.mae import mae
from finetune.evaluation.metrics.mcc import mcc
from finetune.evaluation.metrics.mse import mse
from finetune.evaluation.metrics.pearson import pearson
from finetune.evaluation.metrics.spearman import spearman
from finetune.evaluation.metrics.subset_accuracy import subset_accuracy
from finetune.task import Scores

Problem = Literal["single", "multi", "regression"]


def classification_scores(
    answers: np.ndarray, targets: np.ndarray, labels: Sequence[str], problem: Problem, resamples: int, seed: int = 13
) -> Scores:
    """Return every score of the problem, with 95 % intervals when `resamples` is not 0.

    A score that is undefined on these rows (a class without rows, a constant side) is left out. `n` is the number of
    rows; for a class's own scores, the rows of that class. Two classes: the second label is the positive one.

    Args:
        answers: logits (or log-probabilities) of shape (n, C); for a regression (n,) or (n, 1).
        targets: class numbers (n,); 0/1 of shape (n, C) for several labels; numbers (n,) for a regression.
        labels: the C names, in the order of their numbers; unused for a regression.
        problem: which of the three.
        resamples, seed: of the bootstrap.
    """
    measure = classification_measure(answers, targets, labels, problem)
    return bootstrap(measure, len(targets), resamples, seed, support(targets, labels, problem))


def classification_measure(
    answers: np.ndarray, targets: np.ndarray, labels: Sequence[str], problem: Problem, ranked: bool = True
) -> Measure:
    """Return the function from weights to every score; arguments as of `classification_scores`.

    Without `ranked` it leaves out AUROC and average precision, which cost most.
    """
    if problem == "regression":
        return _regression(answers.reshape(len(targets)).astype(np.float64), targets.reshape(-1).astype(np.float64))
    if problem == "multi":
        return _multi_label(answers, targets, labels, ranked)
    return _single_label(answers, targets, labels, ranked)


def absent_labels(targets: np.ndarray, labels: Sequence[str], problem: Problem) -> list[str]:
    """Return the labels that no target holds: macro averages leave them out, which the run must say."""
    return [label for label, count in _counts(targets, labels, problem).items() if count == 0]


def _single_label(logits: np.ndarray, targets: np.ndarray, labels: Sequence[str], ranked: bool) -> Measure:
    predictions = logits.argmax(axis=1)
    each_loss = losses(logits, targets)
    ranking = (
        logits[:, 1].astype(np.float64) - logits[:, 0] if len(labels) == 2 else softmax(logits.astype(float), axis=1)
    )

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        counts = class_counts(predictions, targets, len(labels), weights)
        return {
            "accuracy": accuracy(predictions, targets, weights),
            **precision_recall_f1(counts, labels),
            "mcc": mcc(counts),
            **(_ranking_scores(ranking, targets, weights) if ranked else {}),
            "nll": each_loss @ weights / weights.sum(axis=0),
        }

    return measure


def _ranking_scores(ranking: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "auroc": auroc(ranking, targets, weights),
        "average_precision": average_precision(ranking, targets, weights),
    }


def _multi_label(logits: np.ndarray, targets: np.ndarray, labels: Sequence[str], ranked: bool) -> Measure:
    predictions = (logits > 0).astype(np.int64)  # a probability above one half
    each_loss = losses(logits, targets)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "subset_accuracy": subset_accuracy(predictions, targets, weights),
            "hamming_loss": hamming_loss(predictions, targets, weights),
            **precision_recall_f1(class_counts(predictions, targets, len(labels), weights), labels),
            **(_ranking_scores(logits, targets, weights) if ranked else {}),
            "nll": each_loss @ weights / weights.sum(axis=0),
        }

    return measure


def _regression(predictions: np.ndarray, targets: np.ndarray) -> Measure:
    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "mse": mse(predictions, targets, weights),
            "mae": mae(predictions, targets, weights),
            "pearson": pearson(predictions, targets, weights),
            "spearman": spearman(predictions, targets, weights),
        }

    return measure


def _counts(targets: np.ndarray, labels: Sequence[str], problem: Problem) -> dict[str, int]:
    if problem == "regression":
        return {}
    counts = targets.sum(axis=0) if problem == "multi" else np.bincount(targets, minlength=len(labels))
    return {label: int(count) for label, count in zip(labels, counts, strict=True)}


def support(targets: np.ndarray, labels: Sequence[str], problem: Problem) -> dict[str, int]:
    """Return how many rows the scores of each class rest on, by score."""
    counts = _counts(targets, labels, problem)
    return {f"{kind}/{label}": n for label, n in counts.items() for kind in ("precision", "recall", "f1")}
