"""The VAE as a model: exact likelihoods, shapes, files, and the stock Trainer of transformers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from transformers import AutoConfig, AutoModel, Trainer, TrainingArguments

import finetune.models  # noqa: F401  # makes the family known
from finetune.models import noise
from finetune.models.vae import VAE
from finetune.models.vae_config import VAEConfig

KEYS = noise.keys(0, 0, torch.arange(6))


def tiny(**options) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(**{"image_size": 8, "latent_dim": 3, "hidden_sizes": (16,), **options}))


def probabilistic_pca(images: np.ndarray) -> tuple[VAE, PCA]:
    """Return a linear VAE with the exact posterior of probabilistic PCA (Tipping & Bishop 1999), in float64."""
    pca = PCA(8).fit(images)
    noise_variance = pca.noise_variance_
    loadings = torch.tensor(pca.components_.T * np.sqrt(pca.explained_variance_ - noise_variance))
    config = VAEConfig(
        image_size=8, latent_dim=8, hidden_sizes=(), likelihood="gaussian", scale=float(np.sqrt(noise_variance))
    )
    model = VAE(config).double().eval()
    inner = loadings.T @ loadings + noise_variance * torch.eye(8, dtype=torch.float64)  # diagonal: loadings are
    back = torch.linalg.solve(inner, loadings.T)
    with torch.no_grad():
        model.grow[0].weight.copy_(loadings)
        model.grow[0].bias.copy_(torch.tensor(pca.mean_))
        model.head.weight.copy_(torch.cat((back, torch.zeros_like(back))))
        spread = (noise_variance / inner.diagonal()).log()
        model.head.bias.copy_(torch.cat((-back @ torch.tensor(pca.mean_), spread)))
    return model, pca


@pytest.fixture(scope="module")
def linear() -> tuple[VAE, torch.Tensor, float]:
    digits = load_digits().data / 16
    model, pca = probabilistic_pca(digits[:1400])
    return model, torch.tensor(digits[1400:]).view(-1, 1, 8, 8), float(pca.score(digits[1400:]))


def test_one_importance_sample_of_the_exact_posterior_is_the_closed_form_of_probabilistic_pca(linear):
    model, images, truth = linear
    keys = noise.keys(0, 0, torch.arange(len(images)))

    assert float(model.log_likelihood(images, 1, keys=keys).mean()) == pytest.approx(truth, abs=1e-6)
    exact = model(images, keys=keys, objective="iwae", num_samples=3).loss
    assert -exact.item() == pytest.approx(truth, abs=1e-6)


def test_the_estimate_grows_with_the_samples_of_a_widened_posterior(linear):
    model, images, truth = linear
    keys = noise.keys(0, 0, torch.arange(len(images)))
    with torch.no_grad():
        model.head.bias[8:] += 2 * math.log(1.5)
        found = [float(model.log_likelihood(images, k, keys=keys).mean()) for k in (1, 10, 100, 1000)]
        model.head.bias[8:] -= 2 * math.log(1.5)

    assert found == sorted(found)
    assert found[0] < truth - 1
    assert truth - 0.01 < found[-1] < truth + 1e-6


def test_the_estimate_does_not_depend_on_how_it_is_cut(monkeypatch):
    model, images = tiny().eval(), torch.rand(6, 1, 8, 8)
    whole = model.log_likelihood(images, 50, keys=KEYS)
    monkeypatch.setattr("finetune.models.vae.AT_ONCE", 24)

    torch.testing.assert_close(model.log_likelihood(images, 50, keys=KEYS), whole)
    torch.testing.assert_close(model.log_likelihood(images[2:3], 50, keys=KEYS[2:3]), whole[2:3])


def test_the_bound_is_summed_over_pixels_and_dimensions_and_averaged_over_images():
    model, images = tiny(binarize="threshold"), torch.rand(6, 1, 8, 8)
    whole, one = model(images, keys=KEYS), model(images[:1], keys=KEYS[:1])

    assert whole.loss.item() == pytest.approx((whole.reconstruction_loss + whole.kl.sum(dim=1)).mean().item())
    assert whole.kl.shape == (6, 3)
    torch.testing.assert_close(one.reconstruction_loss, whole.reconstruction_loss[:1])
    assert whole.reconstruction_loss.mean().item() == pytest.approx(64 * math.log(2), rel=0.05)  # it knows nothing yet


def test_weight_and_free_bits_touch_the_divergence_alone():
    model, images = tiny(), torch.rand(6, 1, 8, 8)
    plain, free = model(images, keys=KEYS), model(images, keys=KEYS, kl_weight=0.5, free_bits=30.0)

    assert torch.equal(plain.kl, free.kl)
    assert free.loss.item() == pytest.approx(plain.reconstruction_loss.mean().item() + 0.5 * 30.0)


def test_more_samples_tighten_the_importance_weighted_objective():
    model, images = tiny(), torch.rand(6, 1, 8, 8)
    found = [model(images, keys=KEYS, objective="iwae", num_samples=k).loss.item() for k in (1, 20, 400)]

    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(float(-model.log_likelihood(images, 1, keys=KEYS).mean()))


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (9, 3), (28, 1), (31, 3), (64, 1), (100, 3)])
def test_the_convolutional_preset_takes_every_size(size, channels):
    model = VAE(VAEConfig(preset="vae-conv", image_size=size, num_channels=channels))
    out = model(torch.rand(2, channels, size, size), keys=KEYS[:2])
    out.loss.backward()

    assert model.sample(2).shape == (2, channels, size, size)
    assert all(each.grad is not None for each in model.parameters())


def test_the_presets_are_the_networks_of_their_names():
    shapes = {
        name: [tuple(each.shape) for each in VAE(VAEConfig(preset=name)).parameters() if each.dim() == 2]
        for name in ("vae-2d", "vae-mnist")
    }

    assert shapes["vae-mnist"] == [(400, 784), (80, 400), (400, 40), (784, 400)]
    assert shapes["vae-2d"] == [(128, 784), (64, 128), (32, 64), (4, 32), (32, 2), (64, 32), (128, 64), (784, 128)]


def test_weights_begin_as_those_of_torch_and_not_with_a_deviation_of_a_fiftieth():
    weight = VAE(VAEConfig(preset="vae-mnist")).encoder[0].weight

    assert weight.abs().max().item() == pytest.approx(1 / math.sqrt(784), rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"channels": (4, 8), "num_channels": 3}, {"num_classes": 4}])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, options):
    model = tiny(**options).eval()
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    images = torch.rand(6, options.get("num_channels", 1), 8, 8)
    condition = torch.arange(6) % 4 if options.get("num_classes") else None

    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert torch.equal(again(images, condition, KEYS).loss, model(images, condition, KEYS).loss)
    assert torch.equal(again.sample(3, condition=condition[:3] if condition is not None else None),
                       model.sample(3, condition=condition[:3] if condition is not None else None))  # fmt: skip


def test_a_conditional_model_hears_its_class_and_misses_it():
    model, images = tiny(num_classes=4), torch.rand(6, 1, 8, 8)
    first, second = (model(images, torch.full((6,), number), KEYS).loss for number in (0, 3))

    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="conditional on 4 classes"):
        model(images, keys=KEYS)
    with pytest.raises(ValueError, match="knows no classes"):
        tiny()(images, torch.zeros(6), KEYS)


def test_classes_take_turns_in_what_a_conditional_model_draws():
    model = tiny(num_classes=4).eval()

    assert torch.equal(model.sample(6), model.sample(6, condition=torch.tensor([0, 1, 2, 3, 0, 1])))


def test_walks_begin_and_end_at_their_latents():
    model = tiny().eval()
    start, end = model.prior(2, seed=1), model.prior(2, seed=2)
    walk = model.interpolate(start, end, 5)
    along = model.traverse(start[0], (2, 0), torch.tensor([-1.0, 0.0, 1.0]))

    assert walk.shape == (10, 1, 8, 8)
    torch.testing.assert_close(walk[[0, 5]], model.decode(start))
    torch.testing.assert_close(walk[[4, 9]], model.decode(end))
    assert along.shape == (6, 1, 8, 8)
    moved = start[:1].clone()
    moved[0, 0] = 1.0
    torch.testing.assert_close(along[5:], model.decode(moved))


def test_samples_belong_to_the_seed_and_their_place():
    model = tiny().eval()

    torch.testing.assert_close(model.sample(9, seed=4)[:5], model.sample(5, seed=4))
    assert not torch.equal(model.sample(5, seed=4), model.sample(5, seed=5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "vae-3d"}, "vae-3d"),
        ({"image_size": 7}, "image_size 7"),
        ({"num_channels": 2}, "num_channels 2"),
        ({"likelihood": "poisson"}, "poisson"),
        ({"channels": (4, 4, 4, 4)}, "leave nothing of 8"),
        ({"latent_dim": 0}, "from 1 on"),
        ({"likelihood": "gaussian", "binarize": "threshold"}, "needs likelihood bernoulli"),
    ],
)
def test_a_model_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VAEConfig(**{"image_size": 8, **options})


class Images(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 32

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(place)
        return {"pixel_values": torch.rand(1, 8, 8, generator=generator)}


def test_the_stock_trainer_sees_a_loss_that_accumulation_leaves_alone(tmp_path):
    losses = []
    for size, parts in ((16, 1), (4, 4)):
        args = TrainingArguments(
            str(tmp_path), max_steps=2, per_device_train_batch_size=size, gradient_accumulation_steps=parts,
            logging_steps=1, report_to=[], learning_rate=0.0, use_cpu=True, disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        model = AutoModel.from_config(AutoConfig.for_model("finetune-vae", image_size=8, latent_dim=2))
        trainer = Trainer(model, args, train_dataset=Images(), eval_dataset=Images())
        trainer.train()
        losses += [each["loss"] for each in trainer.state.log_history if "loss" in each]
        assert "eval_loss" in trainer.evaluate()

    assert losses == pytest.approx([64 * math.log(2)] * 4, rel=0.05)
