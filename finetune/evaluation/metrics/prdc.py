"""Density, coverage, precision and recall of generated rows among real ones, by nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.local_metric import VECTOR, LocalMetric

NEIGHBOURS = 5
CHUNK = 20_000_000  # distances held at once: 160 MB


@dataclass(frozen=True)
class Neighbourhoods:
    """What each row adds to the four means."""

    coverage: np.ndarray  # a real row: whether a generated one lies in its neighbourhood
    recall: np.ndarray  # a real row: whether it lies in a generated row's neighbourhood
    density: np.ndarray  # a generated row: in how many real neighbourhoods it lies, over k
    precision: np.ndarray  # a generated row: whether it lies in one


def neighbourhoods(generated: np.ndarray, real: np.ndarray, k: int = NEIGHBOURS) -> Neighbourhoods:
    """Return what each row adds; a row's neighbourhood is the open ball up to its k-th neighbour in its own set.

    Precision and recall of Kynkäänniemi et al. 2019 (arXiv:1904.06991), density and coverage of Naeem et al. 2020
    (arXiv:2002.09797). Precision alone rates uniform noise high, for one far-off real row's ball holds much space.

    Args:
        generated, real: features, shape (n, width) and (m, width).
        k: lowered where a set has not so many other rows.
    """
    k = max(1, min(k, len(generated) - 1, len(real) - 1))
    generated, real = np.asarray(generated, dtype=np.float64), np.asarray(real, dtype=np.float64)
    ours, theirs = _radii(generated, k), _radii(real, k)
    n, m = len(generated), len(real)
    near, covered, recalled = np.zeros(n), np.zeros(m, dtype=bool), np.zeros(m, dtype=bool)
    step = max(1, CHUNK // m)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        distances = _distances(generated[rows], real)
        inside = distances < theirs
        near[rows] = inside.sum(axis=1)
        covered |= inside.any(axis=0)
        recalled |= (distances < ours[rows, None]).any(axis=0)
    return Neighbourhoods(covered.astype(float), recalled.astype(float), near / k, (near > 0).astype(float))


def prdc(generated: np.ndarray, real: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Return the four means by name; see `neighbourhoods`."""
    return {name: float(values.mean()) for name, values in vars(neighbourhoods(generated, real, k)).items()}


def _radii(rows: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distance of each row to its k-th neighbour, itself not counted."""
    step = max(1, CHUNK // len(rows))
    parts = [_distances(rows[start : start + step], rows) for start in range(0, len(rows), step)]
    return np.concatenate([np.partition(part, k, axis=1)[:, k] for part in parts])


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return squared distances, shape (n, m)."""
    from scipy.spatial.distance import cdist

    return cdist(first, second, "sqeuclidean")


class Prdc(LocalMetric):
    """Density, coverage, precision, recall. Predictions are generated rows' features, references real ones'."""

    features_taken: ClassVar = ((VECTOR, VECTOR),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return dict(prdc(predictions, references, **options))
