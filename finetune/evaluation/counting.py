"""Weighted counts that several metrics are made of. Weights are (n,), or (n, R) for R resamples at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class ClassCounts(NamedTuple):
    """How often each class was right, was said and was meant; each (C,) or (C, R)."""

    right: np.ndarray
    said: np.ndarray
    meant: np.ndarray


class Thresholds(NamedTuple):
    """Positives and negatives at each score that a positive has, and the negatives above it; each (G,) or (G, R)."""

    positives: np.ndarray
    negatives: np.ndarray
    negatives_above: np.ndarray


def weights_of(weights: np.ndarray | None, n: int) -> np.ndarray:
    """Return `weights` as floats, or ones for n rows."""
    return np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)


def group_sums(groups: np.ndarray, count: int, weights: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Return the sum of the weights of each of `count` groups: (count,) or (count, R).

    Args:
        groups: the group of each row, or of each of `rows`.
        count: of groups.
        weights: (n,) or (n, R).
        rows: the numbers of the rows that count; else all.
    """
    from scipy.sparse import csr_array

    rows = np.arange(len(weights)) if rows is None else rows
    return csr_array((np.ones(len(rows)), (groups, rows)), shape=(count, len(weights))) @ weights


def class_counts(
    predictions: np.ndarray, references: np.ndarray, classes: int | None = None, weights: np.ndarray | None = None
) -> ClassCounts:
    """Count per class, for class numbers of shape (n,) or for sets of labels as 0/1 of shape (n, C)."""
    weights = weights_of(weights, len(references))
    if references.ndim == 2:
        said, meant = predictions.astype(np.float64), references.astype(np.float64)
        return ClassCounts((said * meant).T @ weights, said.T @ weights, meant.T @ weights)
    classes = classes or int(max(predictions.max(), references.max())) + 1
    right = (predictions == references).reshape((-1,) + (1,) * (weights.ndim - 1))
    return ClassCounts(
        group_sums(references, classes, weights * right),
        group_sums(predictions, classes, weights),
        group_sums(references, classes, weights),
    )


def threshold_counts(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> Thresholds:
    """Count positives and negatives at and above each score at which a positive stands, from the highest on.

    Args:
        scores: (n,), greater means surer of the positive class.
        positive: (n,), whether the row is of that class; at least one is.
        weights: (n,) or (n, R).
    """
    distinct, owner = np.unique(-scores, return_inverse=True)  # ties share a threshold
    kept = np.bincount(owner[positive], minlength=len(distinct)) > 0
    count = int(kept.sum())
    place: np.ndarray = np.cumsum(kept) - kept  # how many thresholds lie above
    hits, others = np.flatnonzero(positive), np.flatnonzero(~positive)
    positives = group_sums(place[owner[hits]], count, weights, hits)
    # Even segments lie between thresholds, odd ones at them.
    negatives = group_sums((2 * place + kept)[owner[others]], 2 * count + 1, weights, others)
    return Thresholds(positives, negatives[1::2], np.cumsum(negatives, axis=0)[:-1:2])


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where the denominator is 0: an undefined value, never a warning."""
    quotient = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) != 0)


def mean_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of the values that are not NaN; NaN where none is."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0))


def one_against_rest(scores: np.ndarray, references: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (scores, whether positive), each (n,), of each class that has a positive row.

    Args:
        scores: (n,) of the positive class, or (n, C).
        references: (n,), 0/1 or class numbers, or (n, C), 0/1 for each label.
    """
    if scores.ndim == 1:
        scores, meant = scores[:, None], references[:, None] == 1
    elif references.ndim == 1:
        meant = references[:, None] == np.arange(scores.shape[1])
    else:
        meant = references == 1
    for number in np.flatnonzero(meant.any(axis=0)):
        yield scores[:, number], meant[:, number]
