"""By how much two things differ that should be the same; infinite where they are not of one kind."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.selftest.observing import Observed


def apart(one: Iterable[tuple[float, ...]], other: Iterable[tuple[float, ...]]) -> float:
    """Return the largest relative difference of numbers that belong together; infinite where their counts differ."""
    left, right = list(one), list(other)
    if len(left) != len(right) or not left:
        return math.inf
    pairs = [pair for rows in zip(left, right, strict=True) for pair in zip(*rows, strict=True)]
    return most(_relative(*pair) for pair in pairs)


def _relative(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), abs(other), 1e-6)


def scores_apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest difference of scores, relative to those above 1; infinite where a count differs."""
    if one.keys() != other.keys() or any(one[name][1] != other[name][1] for name in one):
        return math.inf
    return most(
        0.0 if _same(one[name][0], other[name][0]) else abs(one[name][0] - other[name][0]) / max(1, abs(one[name][0]))
        for name in one
    )


def values_apart(one: Any, other: Any) -> float:
    """Return the largest difference of two values of a table, numbers within lists too; infinite for other words."""
    if isinstance(one, float) and isinstance(other, float):
        return 0.0 if _same(one, other) else abs(one - other) / max(1.0, abs(one))
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return most(values_apart(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return most(values_apart(*pair) for pair in zip(one, other, strict=True))
    return 0.0 if one == other else math.inf


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))  # a score that these few rows do not have


def weights_apart(one: Observed, other: Observed) -> float:
    """Return the largest difference of two weights of one name; infinite where names or shapes differ."""
    if one.weights.keys() != other.weights.keys():
        return math.inf
    shapes = [one.weights[name].shape == each.shape for name, each in other.weights.items()]
    if not all(shapes):
        return math.inf
    return most(float((one.weights[name] - each).abs().max()) for name, each in other.weights.items())


def files_apart(one: Path, other: Path) -> list[str]:
    """Return the files of the last checkpoints in two folders that are not the same: weights, buffers, every state.

    What a trainer logged is left out: it tells the time.
    """
    from finetune.training.checkpointed import STATE
    from finetune.training.checkpoints import checkpoint_path, manifest_of, steps

    listed = [manifest_of(checkpoint_path(folder, steps(folder)[-1])) for folder in (one, other)]
    if listed[0]["step"] != listed[1]["step"]:
        return ["its step"]
    names = sorted(set(listed[0]["files"]) | set(listed[1]["files"]))
    return [name for name in names if name != STATE and len({str(each["files"].get(name)) for each in listed}) > 1]


def most(values: Iterable[float]) -> float:
    """Return the largest value, or NaN where one is not a number: `max` would pass it over."""
    known = list(values)
    return math.nan if any(map(math.isnan, known)) else max(known, default=0.0)
