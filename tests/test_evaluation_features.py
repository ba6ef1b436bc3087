"""Sets of features held against one another: by closed forms, by brute force, and by what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from finetune.evaluation.features import Seen, feature_scores
from finetune.evaluation.metrics import load_metric
from finetune.evaluation.metrics.cs import cs
from finetune.evaluation.metrics.fcd import fcd, frechet, gaussian
from finetune.evaluation.metrics.kcd import BLOCK, kcd, normalised
from finetune.evaluation.metrics.memorisation import memorisation, nearest
from finetune.evaluation.metrics.prdc import neighbourhoods, prdc
from finetune.evaluation.pixels import memorisation_ratio


@pytest.fixture
def draw():
    return np.random.default_rng(0)


# ---- Fréchet distance


def test_the_frechet_distance_is_that_of_scipys_matrix_root(draw):
    first, second = draw.normal(size=(80, 6)) @ draw.normal(size=(6, 6)), draw.normal(size=(70, 6)) + 1
    ours, theirs = np.cov(first.T), np.cov(second.T)
    gap = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()

    assert fcd(first, second) == pytest.approx(gap + np.trace(ours + theirs - 2 * sqrtm(ours @ theirs).real), rel=1e-9)


def test_in_one_dimension_it_is_the_squared_gap_of_means_and_of_deviations():
    assert frechet(*map(np.atleast_1d, (3.0,)), np.array([[4.0]]), np.array([1.0]), np.array([[9.0]])) == pytest.approx(
        (3 - 1) ** 2 + (2 - 3) ** 2
    )


def test_it_is_symmetric_never_negative_and_knows_neither_rotation_nor_shift(draw):
    first, second = draw.normal(size=(40, 8)), draw.normal(size=(50, 8)) * 2
    turn, _ = np.linalg.qr(draw.normal(size=(8, 8)))

    assert fcd(first, second) == pytest.approx(fcd(second, first), rel=1e-10)
    assert fcd(first @ turn + 5, second @ turn + 5) == pytest.approx(fcd(first, second), rel=1e-9)
    assert 0 <= fcd(first, first) < 1e-6
    assert fcd(3 * first, 3 * second) == pytest.approx(9 * fcd(first, second), rel=1e-10)


def test_fewer_rows_than_features_and_dead_features_are_no_trouble(draw):
    first, second = draw.normal(size=(10, 30)), draw.normal(size=(12, 30))
    first[:, 7] = second[:, 7] = 0.0
    (mean, covariance), (other_mean, other) = gaussian(first), gaussian(second)
    # The nuclear norm of the centred data's product is the same trace, from no root at all.
    left, right = (first - mean) / np.sqrt(9), (second - other_mean) / np.sqrt(11)
    shared = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    expected = ((mean - other_mean) ** 2).sum() + np.trace(covariance) + np.trace(other) - 2 * shared

    assert fcd(first, second) == pytest.approx(expected, rel=1e-6)


# ---- kernel distance


def test_the_kernel_distance_is_the_double_loop(draw):
    first, second = draw.normal(size=(9, 4)), draw.normal(size=(7, 4)) + 1
    x, y = normalised(first, second)

    def mean(one, other, same):
        values = [(a @ b / 4 + 1) ** 3 for i, a in enumerate(one) for j, b in enumerate(other) if not (same and i == j)]
        return np.mean(values)

    assert kcd(first, second) == pytest.approx(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False), rel=1e-10)


def test_it_is_zero_on_average_for_equal_distributions_at_few_rows_as_at_many():
    for count in (20, 200):
        values = []
        for seed in range(200):
            draw = np.random.default_rng(seed)
            values.append(kcd(draw.normal(size=(count, 3)), draw.normal(size=(count, 3))))

        # Centring on the second set moves the mean a little; it is small beside the spread of one value.
        assert abs(np.mean(values)) < 0.35 * np.std(values)
        assert min(values) < 0


def test_it_does_not_change_with_the_scale_or_the_place_of_the_features(draw):
    first, second = draw.normal(size=(40, 5)), draw.normal(size=(30, 5)) + 0.3

    assert kcd(100 * first + 7, 100 * second + 7) == pytest.approx(kcd(first, second), rel=1e-9)


def test_many_rows_are_compared_in_blocks_whose_mean_is_reported(draw):
    first, second = draw.normal(size=(BLOCK + 600, 2)), draw.normal(size=(BLOCK + 400, 2)) * 1.2
    x, y = normalised(first, second)
    halves = []
    for at in range(2):
        a, b = x[at::2], y[at::2]
        k = [(one @ other.T / 2 + 1) ** 3 for one, other in ((a, a), (b, b), (a, b))]
        off = [(each.sum() - np.trace(each)) / (len(each) * (len(each) - 1)) for each in k[:2]]
        halves.append(sum(off) - 2 * k[2].mean())

    assert kcd(first, second) == pytest.approx(np.mean(halves), rel=1e-9)


# ---- classifier score


def test_a_sure_and_even_classifier_gives_the_number_of_classes_and_an_unsure_one_gives_one():
    assert cs(np.eye(7)) == pytest.approx(7)
    assert cs(np.full((5, 7), 1 / 7)) == pytest.approx(1)
    assert cs(np.eye(7)[[2, 2, 2]]) == pytest.approx(1)


def test_weights_of_the_classifier_score_count_rows(draw):
    rows = draw.dirichlet(np.ones(4), size=6)
    counts = np.array([2, 0, 1, 3, 1, 1])

    assert cs(rows, counts[:, None]) == pytest.approx(cs(np.repeat(rows, counts, axis=0)))


# ---- density, coverage, precision, recall


def brute(generated, real, k):
    def radius(rows):
        return [sorted(np.linalg.norm(row - other) for other in rows)[k] for row in rows]

    ours, theirs = radius(generated), radius(real)
    inside = np.array([[np.linalg.norm(g - r) < theirs[j] for j, r in enumerate(real)] for g in generated])
    inverse = np.array([[np.linalg.norm(g - r) < ours[i] for r in real] for i, g in enumerate(generated)])
    return {
        "precision": inside.any(axis=1).mean(),
        "recall": inverse.any(axis=0).mean(),
        "density": inside.sum() / (k * len(generated)),
        "coverage": inside.any(axis=0).mean(),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbourhoods_are_those_of_brute_force(draw, k):
    generated, real = draw.normal(size=(25, 3)) * 1.3, draw.normal(size=(31, 3))

    assert prdc(generated, real, k) == pytest.approx(brute(generated, real, k))


def test_neighbourhoods_do_not_depend_on_the_order_the_place_or_the_scale_of_rows(draw):
    generated, real = draw.normal(size=(60, 4)), draw.normal(size=(50, 4)) + 0.5

    assert prdc(generated[::-1] * 10 + 1, real[::-1] * 10 + 1) == pytest.approx(prdc(generated, real))
    assert neighbourhoods(generated, real).coverage.shape == (50,)


def test_a_dropped_mode_shows_in_coverage_and_recall_and_not_in_precision(draw):
    place = np.where(np.arange(400) % 2, 0.0, 30.0)[:, None]
    real, fresh = (draw.normal(size=(400, 4)) + place for _ in range(2))
    whole, half = prdc(fresh, real), prdc(fresh[::2], real)

    assert whole["coverage"] > 0.9
    assert half["coverage"] <= 0.5
    assert half["recall"] <= 0.5
    assert half["precision"] > 0.8


# ---- memorisation


def test_the_nearest_row_is_that_of_the_full_table_and_a_copy_is_at_zero(draw):
    train = draw.integers(0, 256, (40, 12), dtype=np.uint8)
    rows = np.concatenate([draw.integers(0, 256, (9, 12), dtype=np.uint8), train[[7]]])
    table = np.linalg.norm(rows[:, None].astype(float) - train[None].astype(float), axis=2)
    distances, places = nearest(rows, train)

    assert distances == pytest.approx(table.min(axis=1))
    assert (places == table.argmin(axis=1)).all()
    assert distances[-1] == 0.0


def test_copies_have_a_ratio_near_zero_and_new_rows_one_near_one(draw):
    train, held, fresh = (draw.normal(size=(300, 5)) for _ in range(3))
    unseen = nearest(held, train)[0]
    new, copied = (memorisation_ratio(nearest(rows, train)[0], unseen, 200) for rows in (fresh, train + 1e-3))

    assert new.low < 1 < new.high
    assert copied.high < 0.05
    assert new.value == memorisation(nearest(fresh, train)[0], unseen)
    assert memorisation_ratio(unseen, np.zeros(4), 0) is None


# ---- together


def test_every_interval_holds_its_value_and_none_is_given_where_none_is_asked_for(draw):
    first, second = (Seen(draw.normal(size=(n, 6)), draw.dirichlet(np.ones(3), size=n)) for n in (60, 50))
    with_intervals, without = feature_scores(first, second, 100), feature_scores(first, second, 0)

    assert next(iter(with_intervals)) == "fcd"
    for name, score in with_intervals.items():
        assert score.low <= score.value <= score.high, name
        assert without[name].value == score.value
        assert without[name].low is None


def test_each_metric_of_sets_is_loaded_by_name_and_takes_lists(draw):
    first, second = draw.normal(size=(20, 3)).tolist(), draw.normal(size=(20, 3)).tolist()
    found = {}
    for name in ("fcd", "kcd", "prdc", "swd", "c2st"):
        found |= load_metric(name).compute(predictions=first, references=second)

    assert {"fcd", "kcd", "coverage", "density", "precision", "recall", "swd", "c2st"} == set(found)
    assert found["fcd"] == pytest.approx(fcd(np.array(first), np.array(second)))
