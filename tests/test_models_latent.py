"""The latent space of variational autoencoders against torch.distributions and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from finetune.models import latent


@pytest.fixture
def posterior() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(50, 3, generator=generator), torch.randn(50, 3, generator=generator)


def test_the_divergence_is_that_of_torch(posterior):
    mean, log_variance = posterior
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))

    torch.testing.assert_close(latent.gaussian_kl(mean, log_variance), expected, rtol=1e-4, atol=1e-5)


def test_the_density_is_that_of_torch(posterior):
    mean, log_variance = posterior
    value = mean.flip(0)
    expected = Normal(mean, (0.5 * log_variance).exp()).log_prob(value).sum(dim=-1)

    torch.testing.assert_close(latent.log_normal(value, mean, log_variance), expected, rtol=1e-4, atol=1e-4)


def test_free_bits_cost_their_share_a_dimension_and_pull_at_nothing_below_it():
    kl = torch.tensor([[0.1, 3.0], [0.0, 0.2]], requires_grad=True)
    cost = latent.with_free_bits(kl, 1.0)
    cost.sum().backward()

    assert cost.tolist() == pytest.approx([3.5, 1.0])
    assert kl.grad.tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert torch.equal(latent.with_free_bits(kl, 0.0), kl.sum(dim=1))


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [("linear", 0.0, [2, 2, 2, 2]), ("linear", 0.5, [0, 1, 2, 2]), ("cyclical", 1.0, [0, 1, 0, 2])],
)
def test_the_weight_of_the_divergence_follows_the_progress_of_training(schedule, warmup, expected):
    places = (0.0, 0.25, 0.5, 1.0)
    given = [float(latent.kl_weight(torch.tensor(place), 2.0, warmup, schedule, cycles=2)) for place in places]

    assert given == pytest.approx(expected)


def test_the_importance_weighted_bound_of_one_gaussian_is_exact_with_the_exact_posterior_and_grows_with_samples():
    # z ~ N(0, 1), x | z ~ N(z, 1): x ~ N(0, 2), z | x ~ N(x / 2, 1 / 2)
    x = torch.tensor([[1.3]], dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    truth = float(latent.log_normal(x, zero, zero + math.log(2.0)))
    noise = torch.randn(20000, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weights(log_variance: float) -> torch.Tensor:
        spread = zero + log_variance
        z = latent.reparameterised(x / 2, spread, noise)
        joint = latent.log_normal(x, z, zero) + latent.log_normal(z, zero, zero)
        return joint - latent.log_normal(z, x / 2, spread)

    assert weights(math.log(0.5)) == pytest.approx(truth, abs=1e-9)
    wide = weights(math.log(1.5))
    bounds = [float(latent.importance_weighted(wide.view(k, -1)).mean()) for k in (1, 10, 100, 20000)]
    assert bounds == sorted(bounds)
    assert bounds[0] < truth - 0.1
    assert bounds[-1] == pytest.approx(truth, abs=0.02)


def test_units_that_vary_are_active():
    mean = torch.stack([torch.linspace(-1, 1, 20), torch.full((20,), 5.0), torch.linspace(0, 0.1, 20)], dim=1)

    assert latent.active_units(mean) == 1
    assert latent.active_units(mean, threshold=1e-4) == 2
    assert latent.active_units(mean[:1]) == 0


def test_mutual_information_is_nothing_for_a_deaf_encoder_and_log_rows_for_one_that_tells_rows_apart():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 2, generator=generator)
    far = 1000.0 * torch.arange(40.0)[:, None].expand(40, 2)

    deaf = latent.mutual_information(torch.zeros(40, 2), torch.zeros(40, 2), noise)
    telling = latent.mutual_information(far, torch.zeros(40, 2), far + noise)
    assert deaf == pytest.approx(0.0, abs=1e-5)
    assert telling == pytest.approx(math.log(40), abs=1e-5)
