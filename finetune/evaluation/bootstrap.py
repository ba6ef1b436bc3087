"""Percentile bootstrap intervals over rows.

Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, chapter 13. A resample is a column of counts, how often
each row was drawn: every metric takes such columns as `weights` and answers for all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from finetune.task import Score, Scores

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]  # weights (n, R) → values (R,) by name, NaN where undefined

LEVEL = 0.95
CHUNK = 4_000_000  # weights held at once: 32 MB


def bootstrap(
    measure: Measure, n: int, resamples: int, seed: int = 13, support: dict[str, int] | None = None
) -> Scores:
    """Return each value of `measure` on the n rows with its 95 % interval from `resamples` seeded resamples.

    A value that is undefined (NaN) on the rows is left out. Its interval is None when `resamples` is 0, when there is
    one row, which says nothing of others, or when fewer than 95 % of the resamples define it. The same n, resamples
    and seed draw the same rows, so that the bootstrap of a difference of two measures is paired.

    Args:
        measure: holds the answers and targets of n rows.
        n: rows, at least 1.
        resamples: how often n rows are drawn with replacement.
        seed: of the draws.
        support: the sample size of those values that do not rest on all n rows.
    """
    values = {name: float(value[0]) for name, value in measure(np.ones((n, 1))).items()}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in values}
    for weights in draws(n, resamples if n > 1 else 0, seed):
        for name, value in measure(weights).items():
            drawn[name].append(value)
    return {
        name: Score(value, *interval(drawn[name]), n=(support or {}).get(name, n))
        for name, value in values.items()
        if np.isfinite(value)
    }


def draws(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield weights (n, ≤ resamples), in chunks: a column counts how often each of n rows was drawn."""
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        rows = [np.bincount(generator.integers(0, n, n), minlength=n) for _ in range(size)]
        yield np.stack(rows).T.astype(np.float64, order="C")


def interval(values: list[np.ndarray]) -> tuple[float | None, float | None]:
    """Return the 2.5 and 97.5 percentiles of the defined values, or (None, None) when too few are defined."""
    every = np.concatenate(values) if values else np.empty(0)
    defined = every[np.isfinite(every)]
    if len(every) == 0 or len(defined) < LEVEL * len(every):
        return None, None
    low, high = np.percentile(defined, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def with_gaps(rival: Measure, model: Measure, names: tuple[str, ...]) -> Measure:
    """Return the rival's measure with `NAME_gap` added: the model's value minus the rival's on the same drawn rows."""

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        ours, theirs = model(weights), rival(weights)
        return {**theirs, **{f"{name}_gap": ours[name] - theirs[name] for name in names}}

    return measure
