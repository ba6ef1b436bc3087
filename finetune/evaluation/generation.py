"""Scores of generated texts against references, and against what they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.evaluation.bootstrap import Measure, bootstrap, with_gaps
from finetune.evaluation.counting import divide
from finetune.evaluation.metrics.bleu import bleu_counts, bleu_of
from finetune.evaluation.metrics.chrf import chrf_counts, chrf_of
from finetune.evaluation.metrics.copying import copying
from finetune.evaluation.metrics.rouge import rouge
from finetune.evaluation.words import Cut, words
from finetune.task import Scores

GAPS = ("rouge1", "rouge2", "rougeL", "bleu", "chrf")


def generation_scores(
    texts: Sequence[str],
    references: Sequence[str],
    sources: Sequence[str] | None,
    cut: Cut,
    resamples: int,
    seed: int = 13,
) -> Scores:
    """Return the scores of `generation_measure` with 95 % intervals over texts."""
    return bootstrap(generation_measure(texts, references, sources, cut), len(texts), resamples, seed)


def generation_measure(
    texts: Sequence[str], references: Sequence[str], sources: Sequence[str] | None, cut: Cut
) -> Measure:
    """Return the function from weights to the scores of generated texts.

    `rouge1`, `rouge2`, `rougeL` (mean F1), `bleu` and `chrf` (of the corpus), all from 0 to 100; `length_ratio`, words
    generated over words of the references; `empty`, the share of texts without a word; `commonest`, the share of the
    commonest text: towards 1 the model does not listen to what it reads; with sources `copied`, the share of the words
    that lie in fragments of the source, and `novel_bigrams`, see `finetune.evaluation.metrics.copying`.

    Args:
        texts, references: as many of each, one reference a text.
        sources: what the texts were made from; None where nothing is copied.
        cut: how texts are cut into words, see `finetune.evaluation.words`.
    """
    of_rows = rouge(texts, references, cut)
    for_bleu, for_chrf = bleu_counts(texts, references, cut), chrf_counts(texts, references)
    said, meant = (np.array([len(words(each, cut)) for each in group], dtype=float) for group in (texts, references))
    of_rows["empty"] = (said == 0).astype(float)
    # One text, whichever rows are drawn: a row that is drawn twice would else be a text that was written twice.
    _, kind_of, counts = np.unique(np.array(texts, dtype=object), return_inverse=True, return_counts=True)
    of_rows["commonest"] = (kind_of == counts.argmax()).astype(float)
    if sources is not None:
        taken = copying(texts, sources, cut)
        of_rows |= {"copied": taken["coverage"], "novel_bigrams": taken["novel_bigrams"]}

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "bleu": bleu_of(for_bleu, weights),
            "chrf": chrf_of(for_chrf, weights),
            "length_ratio": divide(said @ weights, meant @ weights),
            **{name: _mean(values, weights) for name, values in of_rows.items()},
        }

    return measure


def generation_rivals(
    rivals: Mapping[str, Sequence[str]],
    texts: Sequence[str],
    references: Sequence[str],
    cut: Cut,
    resamples: int,
    seed: int = 13,
) -> dict[str, Scores]:
    """Return the scores of each rival's texts and, as `SCORE_gap`, the model's score minus the rival's.

    Args:
        rivals: by name, a text for each reference.
        texts, references, cut: as of `generation_measure`; the texts are the model's.
        resamples, seed: of the bootstrap.
    """
    model = generation_measure(texts, references, None, cut)
    return {
        name: bootstrap(
            with_gaps(generation_measure(said, references, None, cut), model, GAPS), len(texts), resamples, seed
        )
        for name, said in rivals.items()
    }


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of the values that are defined."""
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0.0) @ weights, defined.astype(float) @ weights)
