"""How new a row is to a classifier: a density of what its last layer sees, beside the usual scores for outliers.

Every score here is higher for what is more unlike the training rows:

- vae: the negative log-likelihood of the embedding under a variational autoencoder of the training rows' embeddings;
- mahalanobis: the squared distance to the nearest class mean, one covariance for all (Lee et al. 2018,
  arXiv:1807.03888; the last layer alone, no change of the input);
- knn: the distance to the tenth nearest training row, embeddings scaled to length 1 (Sun et al. 2022,
  arXiv:2204.06507);
- energy: minus the log of the summed exponentials of the logits (Liu et al. 2020, arXiv:2010.03759, temperature 1);
- softmax: minus the highest probability (Hendrycks & Gimpel 2017, arXiv:1610.02136).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from finetune.evaluation.bootstrap import bootstrap, with_gaps
from finetune.evaluation.density import fit_vae
from finetune.evaluation.metrics.auroc import auroc
from finetune.task import Scores

if TYPE_CHECKING:
    from finetune.models.vector_vae import VectorVAE

DETECTORS = ("vae", "mahalanobis", "knn", "energy", "softmax")
SCORE = "novelty_auroc"
DRAWS = 64  # importance samples behind a likelihood
NEIGHBOUR = 10  # which nearest row the distance is to
LEAST_ROWS = 20  # training rows that a density can be of
AT_ONCE = 1000  # rows whose distances to all others are held at once


@dataclass(frozen=True)
class Looked:
    """What a classifier makes of n rows."""

    embeddings: np.ndarray  # float32, shape (n, width): what goes into its last layer
    logits: np.ndarray  # shape (n, classes)


@dataclass(frozen=True)
class Novelty:
    """What is kept of the training rows, to say of any row how new it is."""

    vae: VectorVAE
    tables: dict[str, np.ndarray]  # float32: means (classes, width) and whitening (width, width); neighbours (n, width)
    known: dict[str, np.ndarray]  # by detector: sorted scores of rows of the training kind that it was not fitted to
    facts: dict[str, Any]

    def scores(self, seen: Looked) -> dict[str, np.ndarray]:
        """Return the score of each row by each detector, shape (n,), float64."""
        import torch

        vectors = torch.from_numpy(np.ascontiguousarray(seen.embeddings))
        logits = seen.logits.astype(np.float64)
        energy = -logsumexp(logits, axis=1)
        return {
            "vae": -self.vae.log_likelihood(vectors, DRAWS).double().numpy(),
            "mahalanobis": in_parts(self._mahalanobis, seen.embeddings),
            "knn": in_parts(self._knn, seen.embeddings),
            "energy": energy,
            "softmax": -np.exp(logits.max(axis=1) + energy),
        }

    def _mahalanobis(self, embeddings: np.ndarray) -> np.ndarray:
        centres = self.tables["means"] @ self.tables["whitening"]
        return squares(embeddings @ self.tables["whitening"], centres).min(axis=1)

    def _knn(self, embeddings: np.ndarray) -> np.ndarray:
        kept = self.tables["neighbours"]
        place = min(NEIGHBOUR, len(kept)) - 1
        return np.sqrt(np.partition(squares(of_length_1(embeddings), kept), place, axis=1)[:, place])

    def shares(self, detector: str, scores: np.ndarray) -> np.ndarray:
        """Return of each score the share of rows of the training kind that are less new, from 0 to 1."""
        known = self.known[detector]
        share: np.ndarray = np.searchsorted(known, scores) / len(known)
        return share


def in_parts(score: Any, embeddings: np.ndarray) -> np.ndarray:
    """Return the score of each row, some at a time; float64."""
    parts = [score(embeddings[start : start + AT_ONCE]) for start in range(0, len(embeddings), AT_ONCE)]
    return np.concatenate(parts).astype(np.float64)


def of_length_1(vectors: np.ndarray) -> np.ndarray:
    """Return vectors scaled to length 1; one of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: np.ndarray = vectors / np.where(length > 0, length, 1.0)
    return scaled


def squares(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the squared distances, shape (n, m), never below 0."""
    both = (ours**2).sum(axis=1)[:, None] + (theirs**2).sum(axis=1)[None] - 2 * ours @ theirs.T
    return np.maximum(both, 0.0)


def fit(train: Looked, targets: np.ndarray, validation: Looked | None, seed: int = 13) -> Novelty:
    """Return the detectors of a classifier, fitted to nine tenths of its training rows.

    A tenth says when the autoencoder has learned enough. What is usual is read off the validation rows, on which the
    classifier was not trained; that tenth, which it knows too well, stands in for them where there are none.

    Args:
        train: the training rows.
        targets: the number of each one's class, shape (n,).
        validation: other rows of the same kind, or None.
        seed: of the tenth and of the autoencoder.
    """
    from sklearn.covariance import LedoitWolf

    order = np.random.default_rng(seed).permutation(len(targets))
    held, fitted = np.sort(order[: max(1, len(order) // 10)]), np.sort(order[max(1, len(order) // 10) :])
    vectors = np.ascontiguousarray(train.embeddings, dtype=np.float32)
    vae, facts = fit_vae(vectors[fitted], vectors[held], seed)
    classes = np.unique(targets[fitted])
    means = np.stack([vectors[fitted][targets[fitted] == number].mean(axis=0) for number in classes])
    inside = vectors[fitted] - means[np.searchsorted(classes, targets[fitted])]
    values, axes = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(inside).covariance_)
    whitening = axes / np.sqrt(np.maximum(values, values.max() * 1e-6))
    tables = {"means": means, "whitening": whitening, "neighbours": of_length_1(vectors[fitted])}
    calibrated = Looked(vectors[held], train.logits[held]) if validation is None else validation
    facts = {
        "fitted_rows": len(fitted),
        "embedding": vectors.shape[1],
        "vae": facts,
        "usual_rows": len(calibrated.logits),
        "usual_rows_from": "train, which the classifier knows" if validation is None else "validation",
    }
    made = Novelty(vae, {name: each.astype(np.float32) for name, each in tables.items()}, {}, facts)
    known = {name: np.sort(each) for name, each in made.scores(calibrated).items()}
    return Novelty(vae, made.tables, known, facts)


def novelty_scores(
    usual: dict[str, np.ndarray], outliers: dict[str, np.ndarray], told: str, resamples: int, seed: int = 13
) -> tuple[Scores, dict[str, Scores]]:
    """Return the AUROC of one detector, and those of the others with the paired gap of the first over each.

    Args:
        usual, outliers: scores by detector, of rows that the classifier is for and of others.
        told: the detector whose AUROC is the run's.
        resamples, seed: of the bootstrap over all rows.
    """
    positive = np.r_[np.zeros(len(usual[told]), dtype=int), np.ones(len(outliers[told]), dtype=int)]

    def measure_of(name: str) -> Any:
        both = np.r_[usual[name], outliers[name]]
        return lambda weights: {SCORE: auroc(both, positive, weights)}

    own = measure_of(told)
    rivals = {
        name: bootstrap(with_gaps(measure_of(name), own, (SCORE,)), len(positive), resamples, seed)
        for name in DETECTORS
        if name != told
    }
    return bootstrap(own, len(positive), resamples, seed), rivals


def beaten(told: str, own: Scores, rivals: dict[str, Scores]) -> str | None:
    """Return a sentence where another detector tells outliers better, beyond chance; None where none does."""
    better = {name: each for name, each in rivals.items() if (each[f"{SCORE}_gap"].high or 0.0) < 0}
    if not better:
        return None
    name = max(better, key=lambda each: better[each][SCORE].value)
    return (
        f"{name} tells these outliers better than {told}: AUROC {better[name][SCORE].value:.3f} against "
        f"{own[SCORE].value:.3f}. Say --evaluate.novelty {name} where you predict."
    )
