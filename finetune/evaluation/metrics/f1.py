"""Precision, recall and F1: of each class, and macro, micro and weighted over classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.counting import ClassCounts, class_counts, divide, mean_defined
from finetune.evaluation.local_metric import CLASS, LABEL_SET, LocalMetric


def precision_recall_f1(counts: ClassCounts, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """Return precision, recall and F1 by name: `f1/LABEL`, `macro_f1`, `micro_f1`, `weighted_f1` and so on.

    van Rijsbergen 1979, *Information Retrieval*, chapter 7. Macro F1 is the mean of the classes' F1 (not the harmonic
    mean of two means: Opitz & Burst 2019, arXiv:1911.03347). Macro and weighted are over the classes that have rows:
    which classes count does not depend on what a model says. A class never said has precision 0 in them, and no
    precision of its own; a class without rows has no score of its own.

    Args:
        counts: of each class, (C,) or (C, R).
        labels: the C names.
    """
    present = counts.meant > 0
    precision = divide(counts.right, counts.said)
    every = {
        "precision": np.where(present & np.isnan(precision), 0.0, np.where(present, precision, np.nan)),
        "recall": divide(counts.right, counts.meant),
        "f1": np.where(present, divide(2 * counts.right, counts.said + counts.meant), np.nan),
    }
    right, said, meant = (part.sum(axis=0) for part in counts)
    micro = {"precision": divide(right, said), "recall": divide(right, meant), "f1": divide(2 * right, said + meant)}
    scores: dict[str, np.ndarray] = {}
    for name, values in every.items():
        scores[f"macro_{name}"] = mean_defined(values)
        scores[f"micro_{name}"] = micro[name]
        scores[f"weighted_{name}"] = divide(np.where(present, values * counts.meant, 0.0).sum(axis=0), meant)
    own = {**every, "precision": np.where(present, precision, np.nan)}
    for name, values in own.items():
        scores.update({f"{name}/{label}": values[number] for number, label in enumerate(labels)})
    return scores


class F1(LocalMetric):
    """Precision, recall and F1 of each class, macro, micro and weighted.

    Predictions and references are class numbers, or 0/1 for each label; `labels` may name the classes.
    """

    features_taken: ClassVar = ((CLASS, CLASS), (LABEL_SET, LABEL_SET))

    def values(
        self, predictions: np.ndarray, references: np.ndarray, labels: Sequence[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        counts = class_counts(predictions, references, len(labels) if labels else None)
        return precision_recall_f1(counts, labels or [str(number) for number in range(len(counts.meant))])
