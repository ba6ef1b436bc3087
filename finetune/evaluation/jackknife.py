"""Intervals by leaving a group of rows out: for distances between two sets, whose bias depends on how many rows.

A bootstrap draws rows twice, which such a distance takes for a difference; a jackknife only leaves rows out, and the
bias of nearly equal samples cancels in their spread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from finetune.task import Score

GROUPS = 20
NORMAL = 1.959964  # standard deviations that hold 95 %


def jackknife(
    measure: Callable[[np.ndarray, np.ndarray], float],
    first: np.ndarray,
    second: np.ndarray,
    intervals: bool = True,
    groups: int = GROUPS,
) -> Score:
    """Return the measure of two sets with a 95 % interval of the normal approximation.

    The variance is the sum of both sets' delete-a-group jackknife (Efron & Tibshirani 1993, chapter 11); row i belongs
    to group i modulo `groups`. The interval is of the spread alone: it knows nothing of the bias.

    Args:
        measure: from rows of both sets to a number.
        first, second: shapes (n, …) and (m, …); `n` of the score is that of the first.
        intervals: False for the value alone.
        groups: fewer where a set has fewer than 2 rows a group.
    """
    value = float(measure(first, second))
    if not intervals or min(len(first), len(second)) < 4:
        return Score(value, n=len(first))
    variance = _variance(lambda rows: measure(rows, second), first, groups)
    variance += _variance(lambda rows: measure(first, rows), second, groups)
    half = NORMAL * variance**0.5
    return Score(value, value - half, value + half, len(first))


def _variance(measure: Callable[[np.ndarray], float], rows: np.ndarray, groups: int) -> float:
    groups = min(groups, len(rows) // 2)
    owner = np.arange(len(rows)) % groups
    left = np.array([measure(rows[owner != group]) for group in range(groups)])
    return float((groups - 1) / groups * ((left - left.mean()) ** 2).sum())
