"""Scores of a masked language model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from finetune.evaluation.bootstrap import Measure, bootstrap, with_gaps
from finetune.evaluation.counting import divide
from finetune.evaluation.metrics.nll import nll
from finetune.evaluation.metrics.perplexity import perplexity
from finetune.task import Scores


def masked_scores(sums: np.ndarray, right: np.ndarray, tokens: np.ndarray, resamples: int, seed: int = 13) -> Scores:
    """Return `nll` (nats per hidden token), `perplexity` and `masked_accuracy`, with 95 % intervals over inputs.

    Args:
        sums: shape (n,), the negative log-likelihood of each input's hidden tokens, in nats.
        right: shape (n,), how many of them are the likeliest token there.
        tokens: shape (n,), how many they are.
        resamples, seed: of the bootstrap.
    """
    return bootstrap(_measure(sums, right, tokens), len(sums), resamples, seed)


def unigram_masked(
    train: Iterable[np.ndarray],
    test: Iterable[np.ndarray],
    answers: dict[str, np.ndarray],
    vocabulary: int,
    resamples: int,
    seed: int = 13,
) -> Scores:
    """Return the scores of add-one smoothed unigram frequencies on the same hidden tokens, with paired gaps.

    A gap is the model's score minus the rival's.

    Args:
        train: token ids of each training input; negative ones do not count.
        test: the hidden tokens of each test input; negative ones do not count.
        answers: the model's on the test inputs: "nll", "right" and "tokens", as of `masked_scores`.
        vocabulary: its size.
        resamples, seed: of the bootstrap.
    """
    counts = np.zeros(vocabulary)
    for ids in train:
        counts += np.bincount(ids[ids >= 0], minlength=vocabulary)
    cost, likeliest = np.log(counts.sum() + vocabulary) - np.log(counts + 1), counts.argmax()
    held = [ids[ids >= 0] for ids in test]
    sums = np.array([cost[ids].sum() for ids in held])
    right = np.array([(ids == likeliest).sum() for ids in held])
    model = _measure(answers["nll"], answers["right"], answers["tokens"])
    measure = with_gaps(_measure(sums, right, answers["tokens"]), model, ("nll", "masked_accuracy"))
    return bootstrap(measure, len(sums), resamples, seed)


def pseudo_scores(sums: np.ndarray, tokens: np.ndarray, resamples: int, seed: int = 13) -> Scores:
    """Return `pseudo_perplexity` with its 95 % interval over inputs; arguments as of `masked_scores`."""
    return bootstrap(
        lambda weights: {"pseudo_perplexity": perplexity(sums, tokens, weights)}, len(sums), resamples, seed
    )


def _measure(sums: np.ndarray, right: np.ndarray, tokens: np.ndarray) -> Measure:
    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "nll": nll(sums, tokens, weights),
            "perplexity": perplexity(sums, tokens, weights),
            "masked_accuracy": divide(right @ weights, tokens @ weights),
        }

    return measure
