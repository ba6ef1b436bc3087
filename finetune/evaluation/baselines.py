"""Simple rivals on the same test rows: what a score is worth is its distance to theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from finetune.evaluation.bootstrap import bootstrap, with_gaps
from finetune.evaluation.classification import Problem, classification_measure, support
from finetune.evaluation.language import language_measure
from finetune.evaluation.linear import LEAST, word_model
from finetune.task import Scores

GAPS: dict[str, tuple[str, ...]] = {
    "single": ("accuracy", "macro_f1", "mcc"),
    "multi": ("subset_accuracy", "micro_f1", "macro_f1"),
    "regression": ("mse", "mae", "pearson", "spearman"),
    "language": ("nll", "bits_per_byte"),
}


def text_baselines(
    texts: Mapping[str, Sequence[str]],
    targets: dict[str, np.ndarray],
    labels: Sequence[str],
    problem: Problem,
    answers: np.ndarray,
    resamples: int,
    seed: int = 13,
) -> dict[str, Scores]:
    """Return the scores of the majority class (or the mean) and of TF-IDF with a linear model, on the test rows.

    Each also carries `SCORE_gap`, the model's score minus the rival's, with a paired interval. The linear model's
    strength is chosen on validation, or on a tenth of train when there is none; never on test. It is left out when
    the train rows leave it nothing to learn: no words, or targets that are all alike.

    Args:
        texts: by split ("train", "test", perhaps "validation"); the texts of a pair joined.
        targets: by split, as of `classification_scores`.
        labels, problem: as of `classification_scores`.
        answers: the model's on the test rows, as of `classification_scores`.
        resamples, seed: of the bootstrap.
    """
    test = targets["test"]
    constant = constant_answer(targets["train"], len(labels), problem)
    rivals = {"majority" if problem != "regression" else "mean": np.tile(constant, (len(test), 1))}
    linear = word_model(texts, targets, len(labels), problem, seed)
    if linear is not None:
        rivals["tfidf"] = linear
    return held_against(rivals, test, labels, problem, answers, resamples, seed)


def held_against(
    rivals: dict[str, np.ndarray],
    test: np.ndarray,
    labels: Sequence[str],
    problem: Problem,
    answers: np.ndarray,
    resamples: int,
    seed: int,
) -> dict[str, Scores]:
    """Return the scores of each rival's answers and, as `SCORE_gap`, the model's score minus the rival's."""
    model = classification_measure(answers, test, labels, problem, ranked=False)
    scores = {}
    for name, rival in rivals.items():
        measure = with_gaps(classification_measure(rival, test, labels, problem), model, GAPS[problem])
        scores[name] = bootstrap(measure, len(test), resamples, seed, support(test, labels, problem))
    return scores


def constant_answer(targets: np.ndarray, classes: int, problem: Problem) -> np.ndarray:
    """Return the logits that know no input: log of the classes' shares in train, or the mean number."""
    if problem == "regression":
        return np.array([targets.mean()])
    if problem == "multi":
        share = np.clip(targets.mean(axis=0), LEAST, 1 - LEAST)
        return np.log(share) - np.log1p(-share)
    return np.log(np.clip(np.bincount(targets, minlength=classes) / len(targets), LEAST, 1.0))


def unigram_baseline(
    train: Iterable[np.ndarray],
    test: Iterable[np.ndarray],
    text_bytes: np.ndarray,
    sums: np.ndarray,
    resamples: int,
    seed: int = 13,
    vocabulary: int | None = None,
) -> Scores:
    """Return the scores of add-one smoothed unigram frequencies on the test targets, with paired gaps to the model.

    Laplace's rule over `vocabulary` tokens. A gap is the model's score minus the rival's: below 0 is good.

    Args:
        train, test: the targets of each input, token ids; negative ones are padding and do not count.
        text_bytes: shape (n,), as of `language_scores`.
        sums: shape (n,), the model's nats on each test input.
        resamples, seed: of the bootstrap.
        vocabulary: its size; else one more than the greatest id met.
    """
    rival, tokens = unigram_costs(train, test, vocabulary)
    model = language_measure(sums, tokens, text_bytes)
    measure = with_gaps(language_measure(rival, tokens, text_bytes), model, GAPS["language"])
    return bootstrap(measure, len(tokens), resamples, seed)


def unigram_costs(
    train: Iterable[np.ndarray], test: Iterable[np.ndarray], vocabulary: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (nats, number of targets) of each test input under the unigram frequencies; as of `unigram_baseline`."""
    held = [_real(ids) for ids in test]
    counts = np.zeros(vocabulary or 1 + max((int(ids.max()) for ids in held if len(ids)), default=0))
    for ids in map(_real, train):
        seen = np.bincount(ids, minlength=len(counts))
        counts = np.concatenate([counts, np.zeros(len(seen) - len(counts))]) + seen
    cost = np.log(counts.sum() + len(counts)) - np.log(counts + 1)
    return np.array([cost[ids].sum() for ids in held]), np.array([len(ids) for ids in held])


def _real(ids: np.ndarray) -> np.ndarray:
    ids = np.asarray(ids, dtype=np.int64)
    return ids[ids >= 0]
