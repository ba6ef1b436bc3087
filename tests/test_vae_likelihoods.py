"""The likelihoods of pixels against torch.distributions and scipy, and binarisation."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Normal

from finetune.models import noise
from finetune.models.likelihoods import PixelLikelihood, binarised, log_prob

LEVELS = torch.arange(256, dtype=torch.float64) / 255


def test_bernoulli_is_that_of_torch():
    said, pixels = torch.randn(4, 9), (torch.rand(4, 9) > 0.5).float()

    expected = Bernoulli(logits=said).log_prob(pixels)
    torch.testing.assert_close(log_prob("bernoulli", pixels, said, torch.tensor(0.0)), expected)


def test_gaussian_is_that_of_torch():
    said, pixels, log_scale = torch.randn(4, 9), torch.rand(4, 9), torch.tensor(-1.3)

    expected = Normal(said, log_scale.exp()).log_prob(pixels)
    torch.testing.assert_close(log_prob("gaussian", pixels, said, log_scale), expected)


@pytest.mark.parametrize("mean", [-0.4, 0.0, 0.3, 0.999, 1.7])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0])
def test_the_discretised_logistic_sums_to_one_over_its_levels(mean, log_scale):
    total = log_prob("discretised-logistic", LEVELS, torch.tensor(mean), torch.tensor(log_scale).double()).exp().sum()

    assert float(total) == pytest.approx(1.0, abs=1e-9)


def test_the_discretised_logistic_is_scipys_logistic_between_the_borders_of_a_level():
    given = log_prob("discretised-logistic", LEVELS, torch.tensor(0.35), torch.tensor(-2.5).double())
    law = stats.logistic(loc=0.35, scale=float(torch.tensor(-2.5).exp()))
    inner = LEVELS[1:-1].numpy()

    expected = law.cdf(inner + 0.5 / 255) - law.cdf(inner - 0.5 / 255)
    assert given[1:-1].exp().numpy() == pytest.approx(expected, rel=1e-5)
    assert float(given[0].exp()) == pytest.approx(law.cdf(0.5 / 255), rel=1e-5)
    assert float(given[-1].exp()) == pytest.approx(law.sf(1 - 0.5 / 255), rel=1e-5)


def test_levels_far_from_the_mean_keep_a_finite_likelihood_and_gradient():
    mean = torch.tensor([-3.0, 4.0], requires_grad=True)
    given = log_prob("discretised-logistic", torch.tensor([1.0, 0.5]), mean, torch.tensor(-6.0))
    given.sum().backward()

    assert bool(torch.isfinite(given).all())
    assert bool((mean.grad.abs() > 1).all())


def test_binary_pixels_stay_as_they_are():
    pixels = (torch.rand(6, 1, 8, 8) > 0.5).float()
    keys = noise.keys(1, 2, torch.arange(6))

    for how in ("none", "threshold", "dynamic"):
        assert torch.equal(binarised(pixels, how, keys), pixels)


def test_dynamic_binarisation_has_the_mean_of_the_pixels_and_one_draw_a_key():
    pixels = torch.rand(1, 1, 8, 8)
    keys = noise.keys(1, 2, torch.arange(4000))
    drawn = binarised(pixels.expand(4000, -1, -1, -1), "dynamic", keys)

    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn.mean(dim=0) == pytest.approx(pixels[0], abs=0.04)
    assert torch.equal(drawn[7:8], binarised(pixels, "dynamic", keys[7:8]))
    assert not torch.equal(drawn[0], drawn[1])


def test_bernoulli_on_grey_has_no_bits_and_a_density_those_of_the_width_of_a_level():
    nats = torch.tensor([64 * math.log(2)])

    assert PixelLikelihood("bernoulli", None, "none").bits_per_dim(nats, 64) is None
    assert PixelLikelihood("bernoulli", None, "dynamic").bits_per_dim(nats, 64).tolist() == pytest.approx([1.0])
    assert PixelLikelihood("discretised-logistic", None, "none").bits_per_dim(nats, 64).tolist() == pytest.approx([1.0])
    flat = PixelLikelihood("gaussian", None, "none").bits_per_dim(torch.zeros(1), 64)  # a density of 1 over [0, 1]
    assert flat.tolist() == pytest.approx([math.log2(255)])


def test_images_are_summed_over_pixels_for_each_decoding():
    said, pixels = torch.randn(3, 4, 1, 5, 5), torch.rand(4, 1, 5, 5)
    likelihood = PixelLikelihood("gaussian", 0.2, "none")

    expected = Normal(said, 0.2).log_prob(pixels.expand_as(said)).sum(dim=(2, 3, 4))
    torch.testing.assert_close(likelihood(pixels, said), expected)


def test_a_learned_scale_does_not_shrink_beyond_a_bound():
    likelihood = PixelLikelihood("gaussian", None, "none")
    torch.nn.init.constant_(likelihood.log_scale, -50.0)

    assert likelihood.current(torch.zeros(1)).item() == pytest.approx(-6.0)


def test_means_are_pixels():
    said = torch.tensor([-9.0, 0.0, 0.5, 9.0])

    assert PixelLikelihood("gaussian", None, "none").means(said).tolist() == [0.0, 0.0, 0.5, 1.0]
    assert torch.equal(PixelLikelihood("bernoulli", None, "none").means(said), said.sigmoid())
