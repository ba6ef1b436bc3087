"""Images against images by their pixels, held against scipy and against what must be true."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, wasserstein_distance

from finetune.evaluation.grids import BACKGROUND, grid
from finetune.evaluation.jackknife import jackknife
from finetune.evaluation.metrics.c2st import on_levels, told_apart
from finetune.evaluation.metrics.swd import directions, sliced, swd


@pytest.fixture
def draw():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 17), (3, 50), (1, 7)])
def test_in_one_dimension_the_sliced_distance_is_scipys(draw, n, m):
    first, second = draw.normal(size=(n, 1)), draw.normal(0.3, 2, size=(m, 1))

    assert sliced(first, second) == pytest.approx(wasserstein_distance(first[:, 0], second[:, 0]), rel=1e-12)


def test_the_sliced_distance_is_the_mean_of_scipys_over_directions(draw):
    first, second = draw.normal(size=(30, 6)), draw.normal(size=(21, 6)) + 0.5
    along = directions(6, seed=13)
    single = [wasserstein_distance(first @ way, second @ way) for way in along.T]

    assert swd(first, second) == pytest.approx(np.mean(single), rel=1e-12)


def test_a_shift_moves_the_sliced_distance_by_its_length_along_the_directions(draw):
    rows, shift = draw.normal(size=(50, 5)), draw.normal(size=5)

    assert swd(rows, rows + shift) == pytest.approx(np.abs(shift @ directions(5, seed=13)).mean(), rel=1e-12)
    assert swd(rows, rows) == 0.0
    assert swd(rows, rows[::-1] * 2) == pytest.approx(swd(rows * 2, rows))


def test_the_jackknife_of_a_mean_is_its_textbook_standard_error(draw):
    first, second = draw.normal(size=(200, 1)), draw.normal(size=(100, 1))
    score = jackknife(lambda one, two: float(first[one].mean() - second[two].mean()), 200, 100, groups=1000)
    # Left out are pairs of rows: i and i + n / 2.
    pairs = [each.reshape(2, -1).mean(axis=0) for each in (first, second)]
    expected = np.sqrt(sum(each.var(ddof=1) / len(each) for each in pairs))

    assert score.n == 200
    assert score.high - score.value == pytest.approx(norm.ppf(0.975) * expected, rel=1e-6)


def test_equal_sets_cannot_be_told_apart_and_shifted_ones_can(draw):
    first, second = draw.normal(size=(300, 4)), draw.normal(size=(250, 4))

    assert abs(told_apart(first, second).mean() - 0.5) < 0.08
    assert told_apart(first + 3, second).mean() > 0.95
    assert len(told_apart(first, second)) == 500


def test_values_move_to_the_nearest_grey_level_and_levels_stay():
    levels = np.array([0, 16, 255], dtype=np.uint8)
    images = np.array([[0, 7, 9, 16], [120, 140, 254, 255]], dtype=np.uint8)

    assert on_levels(images, levels).tolist() == [[0, 0, 16, 16], [16, 255, 255, 255]]
    assert (on_levels(levels, levels) == levels).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_image_in_its_place(draw, channels):
    images = draw.integers(0, 256, (7, 4, 4, channels), dtype=np.uint8)
    pixels = grid(images, 3, gap=2)

    assert pixels.shape == (3 * 6 - 2, 3 * 6 - 2, 3)
    assert pixels.dtype == np.uint8
    for place, image in enumerate(images):
        top, left = place // 3 * 6, place % 3 * 6
        assert (pixels[top : top + 4, left : left + 4] == image).all()
    assert (pixels[12:, 6:] == BACKGROUND).all()


def test_what_is_no_image_makes_no_grid():
    for wrong in (np.zeros((0, 4, 4, 1), np.uint8), np.zeros((2, 4, 4, 1)), np.zeros((2, 4, 4, 2), np.uint8)):
        with pytest.raises(ValueError, match="no images"):
            grid(wrong, 3)
