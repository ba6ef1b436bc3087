"""Intervals by leaving groups of rows out: for distances between two sets, whose bias depends on how many rows.

A bootstrap draws rows twice, which such a distance takes for a difference; a jackknife only leaves rows out, and the
bias of nearly equal samples cancels in their spread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from finetune.task import Score

GROUPS = 20  # of each set
LEAST = 4  # rows a set, below which there is no interval
NORMAL = 1.959964  # standard deviations that hold 95 %


def jackknife(
    measure: Callable[[np.ndarray, np.ndarray], float], n: int, m: int, intervals: bool = True, groups: int = GROUPS
) -> Score:
    """Return the measure of two sets of n and m rows with a 95 % interval of the normal approximation.

    The variance is the sum of both sets' delete-a-group jackknife (Efron & Tibshirani 1993, chapter 11); row i belongs
    to group i modulo `groups`. The interval is of the spread alone: it knows nothing of the bias.

    Args:
        measure: from which rows count, bool of shapes (n,) and (m,), to a number.
        n, m: rows; `n` is the score's.
        intervals: False for the value alone.
        groups: of each set; fewer where a group would have less than 2 rows.
    """
    first, second = np.ones(n, dtype=bool), np.ones(m, dtype=bool)
    value = float(measure(first, second))
    if not intervals or min(n, m) < LEAST:
        return Score(value, n=n)
    variance = _variance(lambda rows: measure(rows, second), n, groups)
    variance += _variance(lambda rows: measure(first, rows), m, groups)
    half = NORMAL * variance**0.5
    return Score(value, value - half, value + half, n)


def _variance(measure: Callable[[np.ndarray], float], rows: int, groups: int) -> float:
    groups = min(groups, rows // 2)
    owner = np.arange(rows) % groups
    left = np.array([measure(owner != group) for group in range(groups)])
    return float((groups - 1) / groups * ((left - left.mean()) ** 2).sum())
