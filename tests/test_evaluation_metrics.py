"""Metrics against scikit-learn and scipy as independent sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, softmax
from sklearn import metrics as sk

from finetune.errors import UserError
from finetune.evaluation.counting import class_counts
from finetune.evaluation.metrics import METRICS, load_metric
from finetune.evaluation.metrics.accuracy import accuracy
from finetune.evaluation.metrics.auroc import auroc
from finetune.evaluation.metrics.average_precision import average_precision
from finetune.evaluation.metrics.bits_per_byte import bits_per_byte
from finetune.evaluation.metrics.confusion_matrix import confusion_matrix
from finetune.evaluation.metrics.f1 import precision_recall_f1
from finetune.evaluation.metrics.hamming_loss import hamming_loss
from finetune.evaluation.metrics.log_loss import log_loss
from finetune.evaluation.metrics.mae import mae
from finetune.evaluation.metrics.mcc import mcc
from finetune.evaluation.metrics.mse import mse
from finetune.evaluation.metrics.nll import nll
from finetune.evaluation.metrics.pearson import pearson
from finetune.evaluation.metrics.perplexity import perplexity
from finetune.evaluation.metrics.spearman import spearman
from finetune.evaluation.metrics.subset_accuracy import subset_accuracy

SEEDS = range(8)


@pytest.fixture(params=SEEDS)
def draw(request):
    return np.random.default_rng(request.param)


def classes_and_logits(draw, n=60):
    """Return targets and logits of 2 to 6 classes, coarse enough for ties, some classes perhaps without rows."""
    count = int(draw.integers(2, 7))
    targets = draw.integers(0, count, n)
    targets[:2] = [0, 1]
    return targets, np.round(draw.normal(size=(n, count)) + np.eye(count)[targets], 1), count


def test_class_scores_agree_with_scikit_learn(draw):
    targets, logits, count = classes_and_logits(draw)
    said = logits.argmax(axis=1)
    ours = precision_recall_f1(class_counts(said, targets, count), [str(number) for number in range(count)])
    present = np.unique(targets)

    for average in ("macro", "micro", "weighted"):
        which = None if average == "micro" else present
        theirs = sk.precision_recall_fscore_support(targets, said, labels=which, average=average, zero_division=0)
        assert [ours[f"{average}_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(theirs[:3])
    each = sk.precision_recall_fscore_support(targets, said, labels=present, zero_division=np.nan)
    for place, number in enumerate(present):
        mine = [ours[f"{name}/{number}"] for name in ("precision", "recall", "f1")]
        assert mine == pytest.approx([part[place] for part in each[:3]], nan_ok=True)
    assert accuracy(said, targets) == pytest.approx(sk.accuracy_score(targets, said))
    assert mcc(class_counts(said, targets, count)) == pytest.approx(sk.matthews_corrcoef(targets, said))
    assert np.array_equal(
        confusion_matrix(said, targets, count), sk.confusion_matrix(targets, said, labels=range(count))
    )


def test_ranking_scores_of_two_classes_agree_with_scikit_learn_with_ties(draw):
    targets = draw.integers(0, 2, 80)
    scores = np.round(draw.normal(size=80) + targets, 1)

    assert auroc(scores, targets) == pytest.approx(sk.roc_auc_score(targets, scores))
    assert average_precision(scores, targets) == pytest.approx(sk.average_precision_score(targets, scores))


def test_ranking_scores_of_several_classes_agree_with_scikit_learn(draw):
    targets = np.concatenate([np.arange(4), draw.integers(0, 4, 70)])
    chances = softmax(np.round(draw.normal(size=(74, 4)) + np.eye(4)[targets], 1), axis=1)

    theirs = sk.roc_auc_score(targets, chances, multi_class="ovr", average="macro")
    assert auroc(chances, targets) == pytest.approx(theirs)
    precisions = [sk.average_precision_score(targets == number, chances[:, number]) for number in range(4)]
    assert average_precision(chances, targets) == pytest.approx(np.mean(precisions))


def test_scores_of_label_sets_agree_with_scikit_learn(draw):
    targets = draw.integers(0, 2, (50, 4))
    logits = np.round(draw.normal(size=(50, 4)) + targets, 1)
    said = (logits > 0).astype(int)
    ours = precision_recall_f1(class_counts(said, targets), list("abcd"))

    for average in ("macro", "micro", "weighted"):
        theirs = sk.precision_recall_fscore_support(targets, said, average=average, zero_division=0)
        assert [ours[f"{average}_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(theirs[:3])
    assert subset_accuracy(said, targets) == pytest.approx(sk.accuracy_score(targets, said))
    assert hamming_loss(said, targets) == pytest.approx(sk.hamming_loss(targets, said))
    assert auroc(logits, targets) == pytest.approx(sk.roc_auc_score(targets, logits, average="macro"))
    precision = sk.average_precision_score(targets, logits, average="macro")
    assert average_precision(logits, targets) == pytest.approx(precision)
    losses = [sk.log_loss(targets[:, number], expit(logits[:, number]), labels=[0, 1]) for number in range(4)]
    assert log_loss(logits, targets) == pytest.approx(np.mean(losses))


def test_the_nll_of_labels_is_scikit_learns_log_loss(draw):
    targets, logits, count = classes_and_logits(draw)

    assert log_loss(logits, targets) == pytest.approx(
        sk.log_loss(targets, softmax(logits, axis=1), labels=range(count))
    )
    assert np.isfinite(log_loss(np.array([[1000.0, -1000.0]]), np.array([1])))


def test_regression_scores_agree_with_scipy_and_scikit_learn_with_ties(draw):
    targets = np.round(draw.normal(size=40) * 3)
    said = np.round(targets + draw.normal(size=40) * 2)

    assert mse(said, targets) == pytest.approx(sk.mean_squared_error(targets, said))
    assert mae(said, targets) == pytest.approx(sk.mean_absolute_error(targets, said))
    assert pearson(said, targets) == pytest.approx(stats.pearsonr(targets, said).statistic)
    assert spearman(said, targets) == pytest.approx(stats.spearmanr(targets, said).statistic)


def test_a_correlation_with_a_constant_is_undefined():
    assert np.isnan(pearson(np.full(5, 0.1), np.arange(5.0)))
    assert np.isnan(spearman(np.full(5, 0.1), np.arange(5.0)))


def test_language_scores_weigh_by_tokens():
    sums, tokens = np.array([2.0, 30.0]), np.array([1, 9])

    assert nll(sums, tokens) == pytest.approx(3.2)
    assert perplexity(sums, tokens) == pytest.approx(np.exp(3.2))
    assert bits_per_byte(sums, np.array([4, 36])) == pytest.approx(32 / np.log(2) / 40)


def test_a_row_weighted_k_times_counts_as_k_rows(draw):
    targets, logits, count = classes_and_logits(draw)
    numbers = np.round(draw.normal(size=60), 1)
    times = np.stack([draw.integers(0, 4, 60), np.ones(60)], axis=1)
    rows = np.repeat(np.arange(60), times[:, 0].astype(int))
    chances = softmax(logits, axis=1)
    said = logits.argmax(axis=1)
    pairs = [
        (lambda w: auroc(chances, targets, w), lambda r: auroc(chances[r], targets[r])),
        (lambda w: average_precision(chances, targets, w), lambda r: average_precision(chances[r], targets[r])),
        (lambda w: log_loss(logits, targets, w), lambda r: log_loss(logits[r], targets[r])),
        (lambda w: spearman(numbers, targets, w), lambda r: spearman(numbers[r], targets[r])),
        (lambda w: pearson(numbers, targets, w), lambda r: pearson(numbers[r], targets[r])),
        (lambda w: mcc(class_counts(said, targets, count, w)), lambda r: mcc(class_counts(said[r], targets[r], count))),
    ]
    for weighted, repeated in pairs:
        assert weighted(times) == pytest.approx(np.array([repeated(rows), repeated(np.arange(60))]))


SQUARE = [[float(row % 3), float(row // 3)] for row in range(9)]  # places of vectors
ASIDE = [[x + 1.0, y] for x, y in SQUARE]
SAMPLES = {
    "answer_f1": (["a cat", "dog"], [["the cat"], []], 0.5),
    "span_f1": ([["B-X", "O", "B-Y"]], [["B-X", "O", "B-X"]], 0.5),
    "accuracy": ([0, 1, 1, 0], [0, 1, 0, 0], 0.75),
    "active_units": ([[0.0, 1.0], [1.0, 1.0]], [0.0, 0.0], 1.0),
    "auroc": ([0.1, 0.9, 0.4, 0.2], [0, 1, 0, 1], 0.75),
    "average_precision": ([[0.9, 0.1], [0.2, 0.8]], [0, 1], 1.0),
    "bits_per_byte": ([np.log(2), np.log(2)], [1, 3], 0.5),
    "bleu": (["a b c d e", "f g h i"], ["a b c d e", "f g h i"], 100.0),
    "c2st": (SQUARE, ASIDE, None),
    "chrf": (["abcdef gh", "ijk"], ["abcdef gh", "ijk"], 100.0),
    "confusion_matrix": ([0, 1, 1], [0, 1, 0], [[1, 1], [0, 1]]),
    "copying": (["a b x", "c d"], ["z a b", "c d e"], 5 / 6),
    "cs": ([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]], 2.0),
    "f1": ([0, 1, 1, 0], [0, 1, 1, 0], None),
    "fcd": (SQUARE, ASIDE, 1.0),
    "hamming_loss": ([[0, 1], [1, 1]], [[0, 1], [1, 0]], 0.25),
    "kcd": (SQUARE, ASIDE, None),
    "log_loss": ([[0.0, 0.0]], [1], np.log(2)),
    "mae": ([1.0, 2.0], [2.0, 4.0], 1.5),
    "mcc": ([0, 1, 1, 0], [0, 1, 1, 0], 1.0),
    "memorisation": ([1.0, 1.0, 5.0], [2.0, 2.0, 9.0], 0.5),
    "mse": ([1.0, 2.0], [2.0, 4.0], 2.5),
    "nelbo": ([1.0, 2.0], [0.5, 0.5], 2.0),
    "nll": ([2.0, 30.0], [1, 9], 3.2),
    "pearson": ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], 1.0),
    "perplexity": ([0.0], [3], 1.0),
    "prdc": (SQUARE, ASIDE, None),
    "rouge": (["a b c"], ["a b d e"], 100 * 4 / 7),
    "spearman": ([1.0, 2.0, 3.0], [2.0, 4.0, 60.0], 1.0),
    "subset_accuracy": ([[0, 1], [1, 1]], [[0, 1], [1, 0]], 0.5),
    "swd": ([[0.0], [1.0]], [[1.0], [2.0]], 1.0),
}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Keep the copies that `evaluate.load` makes of a module out of the home folder; one place for the process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.usefixtures("modules")
def test_every_metric_loads_by_the_path_of_its_file_and_gives_the_same(name, tmp_path, monkeypatch):
    import evaluate

    monkeypatch.setattr("socket.socket.connect", _refuse)
    file = Path(__file__).parents[1] / "finetune" / "evaluation" / "metrics" / f"{name}.py"
    predictions, references, expected = SAMPLES[name]

    loaded = evaluate.load(str(file), cache_dir=str(tmp_path / "cache"))
    scores = loaded.compute(predictions=predictions, references=references)

    assert scores == load_metric(name).compute(predictions=predictions, references=references)
    if expected is not None:
        assert next(iter(scores.values())) == pytest.approx(np.array(expected))
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def _refuse(*_):
    raise AssertionError("a metric wants the network")


def test_an_undefined_value_is_left_out_rather_than_nan():
    assert load_metric("auroc").compute(predictions=[0.1, 0.2], references=[1, 1]) == {}


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean accuracy"):
        load_metric("acuracy")
