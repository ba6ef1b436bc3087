"""Scores of an autoencoder of texts: both halves of its bound, and what rivals without a latent get."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from finetune.evaluation.baselines import unigram_costs
from finetune.evaluation.bootstrap import Measure, bootstrap, with_gaps
from finetune.evaluation.metrics.active_units import active_units
from finetune.evaluation.metrics.nelbo import nelbo
from finetune.evaluation.metrics.perplexity import perplexity
from finetune.task import Scores


def text_bound_scores(
    reconstruction: np.ndarray, kl: np.ndarray, means: np.ndarray, tokens: np.ndarray, resamples: int, seed: int = 13
) -> Scores:
    """Return the scores of the evidence lower bound, with 95 % intervals over texts.

    `nelbo`, `reconstruction` and `kl` are nats a text; `perplexity_bound` = exp(nelbo of all texts / tokens of all
    texts), an upper bound of the perplexity (a language model's own is no bound); `active_units` counts dimensions
    whose mean has a variance above 0.01.

    Args:
        reconstruction: shape (n,), -log p(text | one draw of its latent), nats, the end of the text included.
        kl: shape (n, latent_dim), nats.
        means: of the posteriors, shape (n, latent_dim).
        tokens: shape (n,), targets of each text.
        resamples, seed: of the bootstrap.
    """
    bound = bound_measure(reconstruction + kl.sum(axis=1), tokens)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        first = bound(weights)
        return {
            "nelbo": first["nelbo"],
            "reconstruction": nelbo(reconstruction, weights),
            "kl": nelbo(kl.sum(axis=1), weights),
            "perplexity_bound": first["perplexity_bound"],
            "active_units": active_units(means, weights),
        }

    return bootstrap(measure, len(tokens), resamples, seed)


def bound_measure(sums: np.ndarray, tokens: np.ndarray) -> Measure:
    """Return the function from weights to nats a text and to the perplexity of its tokens.

    Args:
        sums: shape (n,), nats of each text, or a bound of them.
        tokens: shape (n,), targets of each text.
    """

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "nelbo": nelbo(sums, weights),
            "perplexity_bound": perplexity(sums, tokens, weights),
        }

    return measure


def unigram_texts(
    train: Iterable[np.ndarray],
    test: Iterable[np.ndarray],
    bound: np.ndarray,
    vocabulary: int,
    resamples: int,
    seed: int = 13,
) -> Scores:
    """Return nats a text and perplexity of add-one smoothed unigram frequencies, with paired gaps to the model.

    A gap is the model's bound minus the rival's exact likelihood: below 0 is good.

    Args:
        train, test: the targets of each text, token ids; negative ones are padding.
        bound: shape (n,), the model's nats on each test text.
        vocabulary: its size.
        resamples, seed: of the bootstrap.
    """
    rival, tokens = unigram_costs(train, test, vocabulary)
    measure = with_gaps(bound_measure(rival, tokens), bound_measure(bound, tokens), ("nelbo",))
    return bootstrap(measure, len(tokens), resamples, seed)
