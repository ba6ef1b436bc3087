"""Scores with intervals: what the bootstrap promises."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from json import dumps
from time import process_time

import numpy as np
import pytest
from scipy import stats

from finetune.errors import UserError
from finetune.evaluation.bootstrap import CHUNK, bootstrap, draws, with_gaps
from finetune.evaluation.classification import absent_labels, classification_measure, classification_scores
from finetune.evaluation.language import language_scores
from finetune.evaluation.options import EvaluateOptions

LABELS = ["bad", "good", "so-so"]


def answers_and_targets(n=200, seed=0, classes=3):
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, classes, n)
    return draw.normal(size=(n, classes)) + 1.5 * np.eye(classes)[targets], targets


def test_every_resample_draws_n_rows_and_the_seed_decides_which():
    drawn = np.concatenate(list(draws(50, 20, seed=3)), axis=1)

    assert drawn.shape == (50, 20)
    assert (drawn.sum(axis=0) == 50).all()
    assert np.array_equal(drawn, np.concatenate(list(draws(50, 20, seed=3)), axis=1))
    assert not np.array_equal(drawn, np.concatenate(list(draws(50, 20, seed=4)), axis=1))


def test_large_tests_are_drawn_in_chunks_that_fit_memory():
    assert [part.shape[1] for part in draws(CHUNK // 4, 6, seed=1)] == [4, 2]


def test_the_interval_of_a_mean_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(1).normal(size=300)

    def measure(weights):
        return {"mean": values @ weights / weights.sum(axis=0)}

    ours = bootstrap(measure, 300, 4000)["mean"]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert ours.value == pytest.approx(values.mean())


def test_the_interval_of_an_accuracy_is_near_the_binomial_one():
    logits, targets = answers_and_targets(n=2000)
    score = classification_scores(logits, targets, LABELS, "single", 1000)["accuracy"]
    half = 1.96 * np.sqrt(score.value * (1 - score.value) / 2000)

    assert (score.low, score.high) == pytest.approx((score.value - half, score.value + half), abs=0.004)
    assert score.n == 2000


def test_no_resamples_give_values_without_intervals():
    logits, targets = answers_and_targets()
    plain, full = (classification_scores(logits, targets, LABELS, "single", count) for count in (0, 100))

    assert {(score.low, score.high) for score in plain.values()} == {(None, None)}
    assert {name: score.value for name, score in plain.items()} == {name: score.value for name, score in full.items()}


def test_the_score_of_a_class_counts_the_rows_of_that_class():
    logits, targets = answers_and_targets()
    scores = classification_scores(logits, targets, LABELS, "single", 0)

    assert scores["f1/good"].n == scores["recall/good"].n == (targets == 1).sum()


def test_a_class_without_test_rows_has_no_scores_and_does_not_touch_macro():
    logits, targets = answers_and_targets(classes=2)
    wide = np.column_stack([logits, np.full(len(logits), -50.0)])
    scores = classification_scores(wide, targets, LABELS, "single", 100)

    assert absent_labels(targets, LABELS, "single") == ["so-so"]
    assert not [name for name in scores if name.endswith("/so-so")]
    two = classification_scores(logits, targets, LABELS[:2], "single", 100)
    assert scores["macro_f1"].value == two["macro_f1"].value
    assert "NaN" not in dumps({name: asdict(score) for name, score in scores.items()}, allow_nan=True)


def test_a_class_with_one_test_row_has_a_value_and_no_interval():
    logits, targets = answers_and_targets()
    targets[targets == 2] = 0
    targets[0] = 2

    score = classification_scores(logits, targets, LABELS, "single", 200)["recall/so-so"]
    assert (score.low, score.high, score.n) == (None, None, 1)


def test_a_test_split_of_one_class_leaves_undefined_scores_out():
    logits, _ = answers_and_targets()
    scores = classification_scores(logits, np.zeros(200, dtype=int), LABELS, "single", 100)

    assert {"accuracy", "nll", "f1/bad"} <= set(scores)
    assert not {"mcc", "auroc"} & set(scores)


def test_the_second_label_is_the_positive_one():
    targets = np.array([0, 0, 1, 1])
    logits = np.array([[0.0, -2], [0, -1], [0, 1], [0, 2]])

    assert classification_scores(logits, targets, ["ham", "spam"], "single", 0)["auroc"].value == 1.0


@pytest.mark.parametrize("problem", ["multi", "regression"])
def test_sets_of_labels_and_numbers_are_scored_with_intervals(problem):
    draw = np.random.default_rng(5)
    targets = draw.integers(0, 2, (90, 3)) if problem == "multi" else draw.normal(size=90)
    answers = 2 * targets - 1 + draw.normal(size=targets.shape)
    scores = classification_scores(answers, targets, LABELS, problem, 200)

    best = {"multi": "micro_f1", "regression": "mse"}[problem]
    assert scores[best].low < scores[best].value < scores[best].high
    assert "nll" in scores or problem == "regression"


def test_a_gap_to_itself_is_zero_and_paired_intervals_are_narrower():
    logits, targets = answers_and_targets(n=400)
    near = logits + 0.2 * np.random.default_rng(2).normal(size=logits.shape)
    model = classification_measure(logits, targets, LABELS, "single")
    rival = classification_measure(near, targets, LABELS, "single")

    same = bootstrap(with_gaps(model, model, ("accuracy",)), 400, 200)["accuracy_gap"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    both = bootstrap(with_gaps(rival, model, ("accuracy",)), 400, 500)
    gap, alone = both["accuracy_gap"], both["accuracy"]
    assert gap.value == pytest.approx(model(np.ones((400, 1)))["accuracy"][0] - alone.value)
    assert gap.high - gap.low < alone.high - alone.low


def test_language_scores_do_not_depend_on_how_inputs_are_cut():
    sums, tokens, size = np.array([3.0, 5.0, 4.0]), np.array([2, 4, 3]), np.array([9, 20, 11])
    whole = language_scores(sums, tokens, size, 0)
    cut = language_scores(np.array([8.0, 4.0]), np.array([6, 3]), np.array([29, 11]), 0)

    for name in ("nll", "perplexity", "bits_per_byte"):
        assert whole[name].value == pytest.approx(cut[name].value)
    assert "bits_per_byte" not in language_scores(sums, tokens, np.zeros(3), 100)


def test_a_thousand_resamples_of_3000_rows_and_77_classes_take_seconds():
    logits, targets = answers_and_targets(n=3000, classes=77)
    start = process_time()
    classification_scores(logits, targets, [str(number) for number in range(77)], "single", 1000)

    assert process_time() - start < 5


@pytest.mark.parametrize(
    ("name", "value"), [("resamples", -1), ("resamples", 5), ("reference_rows", 0), ("samples", -2)]
)
def test_options_without_sense_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"evaluate.{name} is {value}"):
        EvaluateOptions(**{name: value})


def test_the_options_import_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'evaluate', 'numpy', 'sklearn', 'matplotlib'}"
    code = f"import sys, finetune.evaluation.options, finetune.evaluation.metrics; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
