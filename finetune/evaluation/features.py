"""Generated and real rows compared by what a classifier makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finetune.evaluation.bootstrap import bootstrap
from finetune.evaluation.jackknife import jackknife
from finetune.evaluation.metrics.c2st import told_apart
from finetune.evaluation.metrics.cs import cs
from finetune.evaluation.metrics.fcd import fcd
from finetune.evaluation.metrics.kcd import blocks
from finetune.evaluation.metrics.prdc import neighbourhoods
from finetune.evaluation.pixels import accuracy
from finetune.task import Score, Scores

WIDEST = 1024  # features, beyond which forty Fréchet distances take minutes and the interval is left out


@dataclass(frozen=True)
class Seen:
    """What a classifier makes of n rows."""

    features: np.ndarray  # shape (n, width)
    probabilities: np.ndarray  # shape (n, classes)


def feature_scores(generated: Seen, real: Seen, resamples: int, seed: int = 13) -> Scores:
    """Return the scores of generated rows against real ones, the most telling first; intervals unless resamples is 0.

    The distances have a jackknife over groups of both sets. The means over rows and the classifier score have a
    bootstrap over those rows, with neighbourhoods and the other set held fixed.
    """
    ours, theirs = generated.features.astype(np.float64), real.features.astype(np.float64)
    n, m = len(ours), len(theirs)
    near = neighbourhoods(ours, theirs)
    kernel = blocks(ours, theirs)
    wide = ours.shape[1] > WIDEST
    return {
        "fcd": jackknife(lambda a, b: fcd(ours[a], theirs[b]), n, m, intervals=resamples > 0 and not wide),
        "kcd": jackknife(kernel, n, m, intervals=resamples > 0),
        "coverage": _mean(near.coverage, resamples, seed),
        "density": _mean(near.density, resamples, seed),
        "cs": _classifier_score(generated.probabilities, resamples, seed),
        "c2st_features": accuracy(told_apart(ours, theirs, seed), resamples, seed),
        "recall": _mean(near.recall, resamples, seed),
        "precision": _mean(near.precision, resamples, seed),
    }


def _mean(values: np.ndarray, resamples: int, seed: int) -> Score:
    return bootstrap(lambda weights: {"": values @ weights / len(values)}, len(values), resamples, seed)[""]


def _classifier_score(probabilities: np.ndarray, resamples: int, seed: int) -> Score:
    return bootstrap(lambda weights: {"": cs(probabilities, weights)}, len(probabilities), resamples, seed)[""]
