"""Scores of a language model."""

from __future__ import annotations

import numpy as np

from finetune.evaluation.bootstrap import Measure, bootstrap, with_gaps
from finetune.evaluation.metrics.bits_per_byte import bits_per_byte
from finetune.evaluation.metrics.nll import nll
from finetune.evaluation.metrics.perplexity import perplexity
from finetune.task import Scores


def language_scores(
    sums: np.ndarray, tokens: np.ndarray, text_bytes: np.ndarray, resamples: int, seed: int = 13
) -> Scores:
    """Return `nll` (nats per token), `perplexity` and `bits_per_byte`, with 95 % intervals over inputs.

    Inputs, not tokens, are drawn: tokens of one text are not independent. `n` is the number of inputs.

    Args:
        sums: shape (n,), the negative log-likelihood of each input's targets, in nats.
        tokens: shape (n,), how many targets each input has.
        text_bytes: shape (n,), the UTF-8 bytes that those targets stand for; all 0 leaves `bits_per_byte` out.
        resamples, seed: of the bootstrap.
    """
    return bootstrap(language_measure(sums, tokens, text_bytes), len(sums), resamples, seed)


def language_measure(sums: np.ndarray, tokens: np.ndarray, text_bytes: np.ndarray) -> Measure:
    """Return the function from weights to the three scores; arguments as of `language_scores`."""

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "nll": nll(sums, tokens, weights),
            "perplexity": perplexity(sums, tokens, weights),
            "bits_per_byte": bits_per_byte(sums, text_bytes, weights),
        }

    return measure


def language_rival(
    rival: np.ndarray, sums: np.ndarray, tokens: np.ndarray, text_bytes: np.ndarray, resamples: int, seed: int = 13
) -> Scores:
    """Return a rival's scores on the same inputs and, as `SCORE_gap`, the model's score minus the rival's.

    Args:
        rival: shape (n,), the rival's nats on each input; below 0 is a good gap.
        sums, tokens, text_bytes, resamples, seed: as of `language_scores`.
    """
    model = language_measure(sums, tokens, text_bytes)
    measure = with_gaps(language_measure(rival, tokens, text_bytes), model, ("nll", "bits_per_byte"))
    return bootstrap(measure, len(sums), resamples, seed)
