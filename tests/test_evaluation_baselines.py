"""Baselines: honest rivals on the same rows."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.evaluation import linear
from finetune.evaluation.baselines import text_baselines, unigram_baseline
from finetune.evaluation.language import language_scores

WORDS = {0: ["dull", "weak", "slow"], 1: ["bright", "strong", "quick"], 2: ["plain", "usual", "middling"]}
LABELS = ["bad", "good", "fair"]


def split(n, seed, classes=3, noise=0.3):
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, classes, n)
    shown = np.where(draw.random(n) < noise, draw.integers(0, classes, n), targets)
    texts = [f"the film is {draw.choice(WORDS[number])} and {draw.choice(WORDS[number])}" for number in shown]
    return texts, targets


def splits(names=("train", "validation", "test"), **options):
    every = {name: split(150, seed, **options) for seed, name in enumerate(names)}
    return {name: pair[0] for name, pair in every.items()}, {name: pair[1] for name, pair in every.items()}


def test_the_majority_is_the_most_common_class_of_train_not_of_test():
    texts, targets = splits()
    targets["train"] = np.where(np.arange(150) < 100, 2, targets["train"])
    scores = text_baselines(texts, targets, LABELS, "single", np.zeros((150, 3)), 0)["majority"]

    assert scores["accuracy"].value == pytest.approx((targets["test"] == 2).mean())
    assert scores["auroc"].value == 0.5


def test_a_perfect_model_is_ahead_of_tfidf_by_a_paired_interval_above_zero():
    texts, targets = splits()
    rival = text_baselines(texts, targets, LABELS, "single", 9 * np.eye(3)[targets["test"]], 200)["tfidf"]

    assert rival["accuracy_gap"].value == pytest.approx(1 - rival["accuracy"].value)
    assert 0 < rival["accuracy_gap"].low < rival["accuracy_gap"].high
    assert rival["accuracy"].value > 0.6


def test_words_are_learnt_as_scikit_learn_learns_them():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts, targets = splits()
    pipes = [
        make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=strength, max_iter=1000)
        ).fit(texts["train"], targets["train"])
        for strength in (1, 3, 10)
    ]
    best = max(pipes, key=lambda pipe: pipe.score(texts["validation"], targets["validation"]))
    ours = linear.word_model(texts, targets, 3, "single", 13)

    assert ours is not None
    chances = np.exp(ours) / np.exp(ours).sum(axis=1, keepdims=True)
    assert np.allclose(chances, best.predict_proba(texts["test"]), atol=0.01)


@pytest.mark.parametrize("classes", [2, 3])
def test_strength_is_chosen_without_looking_at_test(classes):
    texts, targets = splits(classes=classes)
    one = linear.word_model(texts, targets, classes, "single", 13)
    other = linear.word_model(texts, {**targets, "test": 1 - targets["test"]}, classes, "single", 13)

    assert np.array_equal(one, other)


def test_without_validation_a_tenth_of_train_chooses():
    texts, targets = splits(("train", "test"))
    scores = text_baselines(texts, targets, LABELS, "single", np.zeros((150, 3)), 0)

    assert scores["tfidf"]["accuracy"].value > 0.6


def test_a_class_that_train_never_shows_costs_finite_nats():
    texts, targets = splits()
    targets["train"] = np.where(targets["train"] == 2, 0, targets["train"])
    scores = text_baselines(texts, targets, LABELS, "single", np.zeros((150, 3)), 0)

    for rival in scores.values():
        assert np.isfinite(rival["nll"].value)
        assert rival["recall/fair"].value == 0


@pytest.mark.parametrize("spoilt", ["texts", "targets"])
def test_tfidf_is_left_out_when_there_is_nothing_to_learn(spoilt):
    texts, targets = splits()
    if spoilt == "texts":
        texts["train"] = ["?!"] * 150
    else:
        targets["train"] = np.zeros(150, dtype=int)

    assert set(text_baselines(texts, targets, LABELS, "single", np.zeros((150, 3)), 0)) == {"majority"}


def test_sets_of_labels_have_a_line_each_and_a_label_of_one_value_has_none():
    texts, targets = splits()
    sets = {
        name: np.column_stack([np.eye(3, dtype=int)[numbers], np.zeros(150, int)]) for name, numbers in targets.items()
    }
    scores = text_baselines(texts, sets, [*LABELS, "never"], "multi", 6 * sets["test"] - 3.0, 100)

    assert scores["tfidf"]["nll"].value < scores["majority"]["nll"].value
    assert scores["tfidf"]["micro_f1_gap"].low > 0
    assert np.isfinite(scores["tfidf"]["nll"].value)


def test_a_regression_is_held_against_the_mean_and_a_ridge():
    texts, targets = splits(noise=0)
    numbers = {name: values * 2.0 for name, values in targets.items()}
    scores = text_baselines(texts, numbers, [], "regression", numbers["test"][:, None], 100)

    variance = ((numbers["test"] - numbers["train"].mean()) ** 2).mean()
    assert scores["mean"]["mse"].value == pytest.approx(variance)
    assert "pearson" not in scores["mean"]
    assert "pearson_gap" not in scores["mean"]
    assert scores["tfidf"]["mse"].value < variance / 4
    assert scores["tfidf"]["mse_gap"].high < 0


def test_where_words_have_no_spaces_characters_are_words():
    assert linear.WORD.findall("这部 film 很好, a 2b") == ["这", "部", "film", "很", "好", "2b"]


def test_unigrams_are_add_one_smoothed_and_never_infinite():
    train = [np.array([0, 0, 1, -100]), np.array([0])]
    test = [np.array([0, 1, -100]), np.array([3])]
    scores = unigram_baseline(train, test, np.array([2, 1]), np.array([1.0, 1.0]), 0)

    chance = np.array([4, 2, 1, 1]) / 8  # (3 + 1, 1 + 1, 0 + 1, 0 + 1) of 4 + 4
    assert scores["nll"].value == pytest.approx(-np.log(chance[[0, 1, 3]]).mean())
    model = language_scores(np.array([1.0, 1.0]), np.array([2, 1]), np.array([2, 1]), 0)
    assert scores["nll_gap"].value == pytest.approx(model["nll"].value - scores["nll"].value)


def test_a_declared_vocabulary_shares_the_smoothing():
    every = [np.array([0, 1])]
    assert unigram_baseline(every, every, np.array([2]), np.zeros(1), 0, vocabulary=6)["nll"].value == pytest.approx(
        -np.log(2 / 8)
    )
