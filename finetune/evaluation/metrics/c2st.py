"""The classifier two-sample test: how well a small network tells generated from real rows."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np

from finetune.evaluation.local_metric import VECTOR, LocalMetric

FOLDS = 5
EPOCHS = 30


def told_apart(generated: np.ndarray, real: np.ndarray, seed: int = 13) -> np.ndarray:
    """Return whether each row was recognised for what it is by a network that was trained on the other folds.

    Lopez-Paz & Oquab 2017 (arXiv:1610.06545): one hidden layer of 64, 30 epochs of Adam. The mean is the accuracy; 0.5
    says that the two cannot be told apart. Of the longer set as many rows are taken as the shorter has.

    Args:
        generated, real: shape (n, width) and (m, width), at least 2 rows each.
        seed: of the folds and of the network.

    Returns:
        Shape (2 min(n, m),), bool: generated rows first.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = min(len(generated), len(real))
    chooser = np.random.default_rng(seed)
    rows = [each[np.sort(chooser.permutation(len(each))[:count])] for each in (generated, real)]
    target = np.repeat([1, 0], count)
    network = MLPClassifier(
        (64,), max_iter=EPOCHS, batch_size=min(64, count), learning_rate_init=3e-3, random_state=seed
    )
    folds = StratifiedKFold(min(FOLDS, count), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many epochs are the definition
        said = cross_val_predict(make_pipeline(StandardScaler(), network), np.concatenate(rows), target, cv=folds)
    return said == target


def on_levels(images: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return images with each value moved to the nearest of the sorted `levels`: what such files could hold."""
    edges = (levels[:-1].astype(float) + levels[1:].astype(float)) / 2
    return levels[np.searchsorted(edges, images)]


class C2st(LocalMetric):
    """Accuracy of telling generated rows (predictions) from real ones (references), as many vectors each."""

    features_taken: ClassVar = ((VECTOR, VECTOR),)

    def values(self, predictions: np.ndarray, references: np.ndarray, **options: Any) -> dict[str, Any]:
        return {"c2st": told_apart(predictions, references, **options).mean()}
