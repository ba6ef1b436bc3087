"""What the players lose, held against independent formulas, finite differences and closed forms."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, kl_divergence
from torch.nn import functional as F

from finetune.models import noise
from finetune.models.gan import Discriminator, GANConfig
from finetune.training.adversarial.ema import Average
from finetune.training.adversarial.game import Game
from finetune.training.adversarial.losses import BETAS, Loss, discriminator_losses, generator_losses
from finetune.training.adversarial.penalties import one_centred, slopes, zero_centred

REAL = torch.tensor([-30.0, -1.5, -0.2, 0.0, 0.7, 1.0, 40.0], dtype=torch.float64)
FAKE = torch.tensor([2.0, -40.0, 0.3, 0.0, -1.0, 30.0, -0.9], dtype=torch.float64)
KEYS = noise.keys(3, 0, torch.arange(5))
WIDTH = 3 * 8 * 8


class Linear(nn.Module):
    """Judges by w·x + b: its slope is w at every image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(WIDTH, 1)

    def forward(self, images: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        return self.layer(images.flatten(1))[:, 0]


def painter(latents: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
    """Generate images without a weight."""
    return torch.tanh(latents).repeat(1, WIDTH // latents.shape[1]).view(-1, 3, 8, 8)


def batch(count: int = 5, progress: float = 0.0) -> dict[str, torch.Tensor]:
    real = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"pixel_values": real, "keys": KEYS[:count], "progress": torch.tensor(progress)}


def judge(**options) -> Discriminator:
    torch.manual_seed(0)
    options = {"preset": "mlp", "image_size": 8, "hidden_sizes": [12, 12], **options}
    return Discriminator(GANConfig(**options)).double()


def test_every_loss_has_betas():
    assert set(BETAS) == set(get_args(Loss))


def test_bce_is_the_divergence_of_the_true_answers_from_the_judged_ones():
    said_real, said_fake = Bernoulli(logits=REAL), Bernoulli(logits=FAKE)
    true, false = Bernoulli(torch.ones_like(REAL)), Bernoulli(torch.zeros_like(REAL))

    expected = kl_divergence(true, said_real) + kl_divergence(false, said_fake)
    torch.testing.assert_close(discriminator_losses("bce", REAL, FAKE), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        generator_losses("bce", None, FAKE), -said_fake.log_prob(torch.ones_like(FAKE)), rtol=1e-9, atol=1e-12
    )


def test_hinge_wasserstein_and_relativistic_losses_are_those_of_their_papers():
    real, fake = REAL.numpy(), FAKE.numpy()
    expected = {
        "hinge": (np.maximum(0, 1 - real) + np.maximum(0, 1 + fake), -fake),
        "wgan-gp": (fake - real, -fake),
        # -log(sigmoid(C(x) - C(y))) and the same with the players' roles changed (Huang et al. 2024, equation 2).
        "r3gan": (np.logaddexp(0, fake - real), np.logaddexp(0, real - fake)),
    }

    for loss, (of_discriminator, of_generator) in expected.items():
        assert np.allclose(discriminator_losses(loss, REAL, FAKE), of_discriminator, rtol=1e-12)
        assert np.allclose(generator_losses(loss, REAL, FAKE), of_generator, rtol=1e-12)


@pytest.mark.parametrize("loss", get_args(Loss))
def test_a_better_discriminator_loses_less_and_a_better_generator_too(loss):
    real, fake = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    slope_real, slope_fake = torch.autograd.grad(discriminator_losses(loss, real, fake).sum(), (real, fake))
    (slope,) = torch.autograd.grad(generator_losses(loss, real.detach(), fake).sum(), (fake,))

    assert slope_real < 0 < slope_fake
    assert slope < 0


def test_the_slope_of_a_network_is_that_of_finite_differences():
    network, images = judge(), torch.rand(3, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    slope = slopes(network, images).detach()

    step, whole = 1e-6, images.detach().flatten(1)
    with torch.no_grad():
        for place in range(0, WIDTH, 7):
            moved = whole.clone()
            moved[:, place] += step
            quotient = (network(moved.view_as(images)) - network(images)) / step
            torch.testing.assert_close(slope[:, place], quotient, rtol=1e-4, atol=1e-8)


def test_the_gradient_of_a_penalty_is_that_of_finite_differences():
    network, images = judge(), torch.rand(3, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = network.body.layers[1].weight

    def penalty() -> torch.Tensor:
        slope = slopes(network, images)
        return (zero_centred(slope) + 10 * one_centred(slope)).sum()

    (gradient,) = torch.autograd.grad(penalty(), weight)
    before, step = penalty().item(), 1e-7
    for place in [(0, 0), (3, 50), (11, 191)]:
        with torch.no_grad():
            weight[place] += step
        assert (penalty().item() - before) / step == pytest.approx(gradient[place].item(), rel=1e-4, abs=1e-6)
        with torch.no_grad():
            weight[place] -= step


def test_penalties_on_a_linear_discriminator_have_their_closed_form():
    network, rows = Linear(), batch()
    squared = network.layer.weight.square().sum().item()
    plain = Game("bce").discriminator(network, painter, 4, rows).loss.item()

    def extra(**weights: float) -> float:
        return (Game("bce", **weights).discriminator(network, painter, 4, rows).loss.item() - plain) / 5

    assert extra(r1_gamma=3.0) == pytest.approx(1.5 * squared, rel=1e-4)
    assert extra(r2_gamma=5.0) == pytest.approx(2.5 * squared, rel=1e-4)
    assert extra(gp_weight=10.0) == pytest.approx(10 * (squared**0.5 - 1) ** 2, rel=1e-4)
    assert extra(r1_gamma=3.0, r2_gamma=5.0, gp_weight=10.0) == pytest.approx(
        4 * squared + 10 * (squared**0.5 - 1) ** 2, rel=1e-4
    )


def test_r1_looks_at_real_and_r2_at_generated_images():
    class Squared(nn.Module):
        def forward(self, images, condition=None):
            return images.square().flatten(1).sum(dim=1) / 2  # its slope is the image itself

    rows = batch()
    latents = noise.normal(KEYS, 4, 2)
    real, fake = (each.square().sum().item() for each in (rows["pixel_values"], painter(latents)))
    plain = Game("wgan-gp").discriminator(Squared(), painter, 4, rows).loss.item()

    for weights, expected in (({"r1_gamma": 2.0}, real), ({"r2_gamma": 2.0}, fake)):
        found = Game("wgan-gp", **weights).discriminator(Squared(), painter, 4, rows).loss.item() - plain
        assert found == pytest.approx(expected, rel=1e-5)


def test_the_mixture_of_the_gradient_penalty_lies_between_its_pair():
    seen = []

    class Watching(Linear):
        def forward(self, images, condition=None):
            seen.append(images)
            return super().forward(images)

    rows = batch()
    Game("wgan-gp", gp_weight=1.0).discriminator(Watching(), painter, 4, rows)
    (real, fake), between = seen[0].chunk(2), seen[1]
    share = (between - fake) / (real - fake)

    assert torch.equal(real, rows["pixel_values"])
    spread = share.flatten(1).detach()
    assert (spread.amax(1) - spread.amin(1) < 1e-3).all()  # one share an image
    assert ((spread > 0) & (spread < 1)).all()
    assert spread[:, 0].std() > 0.05


@pytest.mark.parametrize("options", [{"r1_gamma": 1.0, "r2_gamma": 1.0}, {"gp_weight": 10.0}])
def test_penalties_are_taken_in_float32_under_autocast(options):
    network, rows, game = Linear(), batch(), Game("bce", **options)
    kinds: list[torch.dtype] = []
    network.layer.register_forward_hook(lambda _module, _given, out: kinds.append(out.dtype))

    def penalty(half: bool) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = game.discriminator(network, painter, 4, rows).loss
            loss = loss - Game("bce").discriminator(network, painter, 4, rows).loss
        return loss, torch.autograd.grad(loss, network.layer.weight)[0]

    whole, half = penalty(False), penalty(True)
    assert torch.bfloat16 in kinds
    assert kinds.count(torch.float32) >= 3  # two without autocast, and the penalty's own
    torch.testing.assert_close(half[0], whole[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(half[1], whole[1], rtol=1e-4, atol=1e-5)


def test_no_player_learns_in_the_turn_of_the_other():
    network, generator = Linear(), nn.Sequential(nn.Linear(4, WIDTH), nn.Unflatten(1, (3, 8, 8)))

    def made(latents, condition):
        return generator(latents)

    Game("r3gan", 1.0, 1.0).discriminator(network, made, 4, batch()).loss.backward()
    assert all(each.grad is None for each in generator.parameters())
    assert network.layer.weight.grad.abs().sum() > 0
    network.zero_grad()
    network.requires_grad_(False)
    Game("r3gan", 1.0, 1.0).generator(made, network, 4, batch()).backward()
    assert all(each.grad is None for each in network.parameters())
    assert all(each.grad.abs().sum() > 0 for each in generator.parameters())


def test_judgements_are_counted_as_their_names_say():
    class Said(nn.Module):
        def forward(self, images, condition=None):
            return torch.tensor([1.0, -1.0, 2.0, -3.0, 0.5, -2.0, -2.0, 3.0, -1.0, 1.0], requires_grad=True)

    judged = Game("bce").discriminator(Said(), painter, 4, batch())

    assert (int(judged.real_right), int(judged.fake_right), int(judged.pair_right)) == (3, 3, 2)
    assert float(judged.gap) == pytest.approx(0.5)


def test_instance_noise_falls_to_nothing_and_differs_between_real_and_generated():
    network, game = Linear(), Game("bce", instance_noise=0.5)
    seen = []
    network.register_forward_pre_hook(lambda _module, given: seen.append(given[0].detach()))
    for progress in (0.0, 0.5, 1.0):
        game.discriminator(network, painter, 4, batch(progress=progress))
    first, half, none = seen

    assert torch.equal(none[:5], batch()["pixel_values"])
    assert (first - none).std().item() == pytest.approx(0.5, rel=0.1)
    torch.testing.assert_close(2 * (half - none), first - none, rtol=1e-4, atol=1e-5)
    real, fake = ((first - none)[part].flatten() for part in (slice(5), slice(5, 10)))
    assert abs(np.corrcoef(real, fake)[0, 1]) < 0.15


def test_the_average_has_its_closed_form_and_copies_buffers():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    average, decays = Average(network, 0.9), []
    weights = [network[0].weight.detach().clone()]
    for step in range(120):
        with torch.no_grad():
            network[0].weight.add_(F.normalize(torch.randn(3, 2, dtype=torch.float64)))
            network[1].running_mean.add_(1.0)
            network[1].num_batches_tracked.add_(2)
        weights.append(network[0].weight.detach().clone())
        average.update(network, step)
        decays.append(min(0.9, (1 + step) / (10 + step)))

    shares = [np.prod(decays), *((1 - each) * np.prod(decays[n + 1 :]) for n, each in enumerate(decays))]
    assert sum(shares) == pytest.approx(1)
    expected = sum(share * each for share, each in zip(shares, weights, strict=True))
    torch.testing.assert_close(average.network[0].weight, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(average.network[1].running_mean, network[1].running_mean)
    assert int(average.network[1].num_batches_tracked) == 240
    assert not any(each.requires_grad for each in average.network.parameters())
    assert decays[0] == 0.1
    assert not average.network.training
