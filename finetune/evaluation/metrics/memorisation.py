"""Whether generated rows are copies: how near they come to training rows, beside how near unseen real rows come."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.local_metric import NUMBER, LocalMetric

CHUNK = 10_000_000  # distances held at once: 40 MB


def memorisation(generated: np.ndarray, held_out: np.ndarray) -> float:
    """Return the median distance of generated rows to the nearest training row over that of held-out real rows.

    1: as far as unseen real rows; towards 0: copies. Blurred images lie nearer to everything, and so below 1 too.

    Args:
        generated, held_out: such distances, shape (n,) and (m,); see `nearest`.
    """
    return float(np.median(generated) / np.median(held_out))


def nearest(rows: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's Euclidean distance to the nearest training row, and which row that is.

    Args:
        rows, train: vectors, shape (n, width) and (m, width), of any number type.

    Returns:
        Shapes (n,), float64 and int. Among nearly equal ones the nearest is found in float32; its distance is exact.
    """
    best, place = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=int)
    step = max(1, CHUNK // len(rows))
    queries = rows.astype(np.float32)
    for start in range(0, len(train), step):
        part = train[start : start + step].astype(np.float32)
        distances = (part**2).sum(axis=1) - 2 * (queries @ part.T)  # less the query's own square, which orders nothing
        found = distances.argmin(axis=1)
        value = distances[np.arange(len(rows)), found]
        better = value < best
        best[better], place[better] = value[better], start + found[better]
    gaps = [row.astype(np.float64) - train[at].astype(np.float64) for row, at in zip(rows, place, strict=True)]
    return np.array([np.linalg.norm(gap) for gap in gaps]), place


class Memorisation(LocalMetric):
    """The memorisation ratio. Predictions and references are distances to the nearest training row."""

    features_taken: ClassVar = ((NUMBER, NUMBER),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"memorisation": memorisation(predictions, references)}
