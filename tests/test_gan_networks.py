"""Generators and discriminators: every size and colour, their files, and what their configuration refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import AutoConfig, AutoModel

import finetune.models  # noqa: F401  # makes the family known
from finetune.loading import ModelOptions
from finetune.models import noise
from finetune.models.gan import PRESETS, Discriminator, GANConfig, Generator, attach
from finetune.tasks.image_gan import ImageGAN

SIZES = [8, 13, 28, 32, 64, pytest.param(256, marks=pytest.mark.slow)]
NARROW = {"channels": 4, "hidden_sizes": [16, 8], "latent_dim": 5}


def players(**options) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    config = GANConfig(**{**NARROW, **options})
    return Generator(config), Discriminator(config)


def draw(count: int = 3, classes: int = 0, latent_dim: int = 5) -> tuple[torch.Tensor, torch.Tensor | None]:
    keys = noise.keys(0, 0, torch.arange(count))
    return noise.normal(keys, latent_dim), torch.arange(count) % classes if classes else None


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in network.state_dict().items()}


def assert_same_bits(given: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert given.keys() == expected.keys()
    assert all(torch.equal(given[name], expected[name]) for name in expected)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("colours", "classes"), [(1, 0), (3, 0), (1, 4), (3, 4)])
def test_every_size_colour_and_class_has_an_image_and_a_logit(preset, size, colours, classes):
    generator, discriminator = players(preset=preset, image_size=size, num_channels=colours, num_classes=classes)
    latents, condition = draw(classes=classes)

    images = generator(50 * latents, condition)
    logits = discriminator(images, condition)
    logits.sum().backward()

    assert images.shape == (3, colours, size, size)
    assert images.abs().max() <= 1
    assert images.std() > 0
    assert logits.shape == (3,)
    for player in (generator, discriminator):
        assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in player.parameters())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [13, 32])
def test_every_pixel_depends_on_the_latents_and_is_looked_at(preset, size):
    generator, discriminator = players(preset=preset, image_size=size, num_channels=1)
    images = generator(draw(64)[0]).detach().requires_grad_()

    assert (images.std(dim=0) > 0).all()
    discriminator(images).sum().backward()
    # A convolution of kernel 4 and stride 2 leaves out the last line of an odd size.
    seen = images.grad[..., : size // 2 * 2, : size // 2 * 2].abs().sum(dim=(0, 1))
    assert (seen > 0).all()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("classes", [0, 3])
def test_no_logit_and_without_batch_norm_no_image_depends_on_its_neighbours(preset, classes):
    generator, discriminator = players(preset=preset, image_size=16, num_classes=classes, generator_norm="none")
    latents, condition = draw(6, classes)
    images = generator(latents, condition)
    part = None if condition is None else condition[2:4]

    torch.testing.assert_close(generator(latents[2:4], part), images[2:4], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        discriminator(images, condition)[2:4], discriminator(images[2:4], part), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("spectral", [False, True])
def test_there_is_no_batch_norm_in_a_discriminator(preset, spectral):
    generator, discriminator = players(preset=preset, generator_norm="batch", spectral_norm=spectral)

    assert any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in generator.modules())
    assert not [each for each in discriminator.modules() if "Norm" in type(each).__name__.replace("SpectralNorm", "")]


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_players_come_back_from_their_folder_bit_for_bit(tmp_path: Path, preset, classes):
    options = {"preset": preset, "image_size": 12, "num_classes": classes, "generator_norm": "batch"}
    generator, discriminator = players(**options, spectral_norm=True)
    latents, condition = draw(8, classes)
    generator(latents, condition)  # moves the means of the batch norm
    discriminator.refine(3)
    raw = {name: each + 1 if each.is_floating_point() else each for name, each in state_of(generator).items()}
    generator.save_pretrained(tmp_path)
    generator.save_pretrained(tmp_path, state_dict=dict(raw), variant="raw")
    discriminator.save_pretrained(tmp_path / "discriminator")

    again = AutoModel.from_pretrained(tmp_path)
    judge = Discriminator.from_pretrained(tmp_path, subfolder="discriminator")

    assert isinstance(again, Generator)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), GANConfig)
    assert_same_bits(again.state_dict(), generator.state_dict())
    assert_same_bits(judge.state_dict(), discriminator.state_dict())
    assert_same_bits(AutoModel.from_pretrained(tmp_path, variant="raw").state_dict(), raw)
    images = again(latents, condition)
    assert torch.equal(images, generator.eval()(latents, condition))
    assert torch.equal(judge(images, condition), discriminator(images, condition))
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"config.json", "model.safetensors", "model.raw.safetensors",
                     "discriminator/config.json", "discriminator/model.safetensors"}  # fmt: skip
    assert json.loads((tmp_path / "config.json").read_text())["image_range"] == [-1.0, 1.0]


@pytest.mark.parametrize("whole", [True, False])
def test_players_come_back_from_the_hub_and_a_missing_discriminator_is_said(hub, tmp_path, capsys, whole):
    generator, discriminator = players(preset="mlp", image_size=8, num_channels=1)
    generator.save_pretrained(tmp_path / "repo")
    if whole:
        discriminator.save_pretrained(tmp_path / "repo" / "discriminator")
    task = ImageGAN(image_size=8, num_channels=1)
    hub.upload("tiny/digits", tmp_path / "repo")
    loaded, new = task.load_model(ModelOptions(path="tiny/digits"), None)
    judge = task.adversary(loaded)

    assert_same_bits(loaded.state_dict(), generator.state_dict())
    assert new == []
    same = all(torch.equal(judge.state_dict()[name], each) for name, each in discriminator.state_dict().items())
    assert same is whole
    assert ("New, with random weights: discriminator." in capsys.readouterr().out) is not whole


def test_new_weights_are_drawn_as_the_preset_says():
    generator, discriminator = players(preset="dcgan", channels=32, image_size=32, spectral_norm=True, latent_dim=64)
    drawn = [each.parametrizations.weight.original for each in discriminator.modules() if
             parametrize.is_parametrized(each, "weight")]  # fmt: skip
    drawn += [each.weight for each in generator.modules() if isinstance(each, nn.ConvTranspose2d)]

    for weight in drawn:  # N(0, 0.02), as Radford et al. 2015 have it
        assert weight.std().item() == pytest.approx(0.02, abs=4 * 0.02 / (2 * weight.numel()) ** 0.5)
    norms = torch.cat([each.weight for each in generator.modules() if isinstance(each, nn.BatchNorm2d)])
    assert norms.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("preset", PRESETS)
def test_spectral_norm_divides_by_the_largest_singular_value(preset):
    _, discriminator = players(preset=preset, image_size=16, num_classes=3, spectral_norm=True)
    discriminator.refine(300)
    layers = [each for each in discriminator.modules() if isinstance(each, nn.Linear | nn.Conv2d | nn.Embedding)]

    assert all(parametrize.is_parametrized(each, "weight") for each in layers)
    for layer in layers:
        original = layer.parametrizations.weight.original.detach().flatten(1).numpy()
        largest = np.linalg.svd(original, compute_uv=False)[0]
        assert np.allclose(layer.weight.detach().flatten(1).numpy(), original / largest, rtol=2e-3, atol=1e-7)


def test_spectral_norm_is_refined_by_one_call_a_step_and_by_no_forward_pass():
    _, discriminator = players(preset="mlp", image_size=8, spectral_norm=True)
    images, before = torch.rand(4, 3, 8, 8), state_of(discriminator)

    for mode in (True, False):
        discriminator.train(mode)
        discriminator(images)
    assert_same_bits(discriminator.state_dict(), before)
    discriminator.train().refine()
    changed = {name for name, each in before.items() if not torch.equal(discriminator.state_dict()[name], each)}
    assert {name.rpartition(".")[2] for name in changed} == {"_u", "_v"}


def test_conditional_players_ask_for_the_class_of_each_image():
    generator, discriminator = players(preset="mlp", image_size=8, num_classes=3)
    latents, condition = draw(3, 3)

    with pytest.raises(ValueError, match="a conditional generator needs the class of each image: condition"):
        generator(latents)
    with pytest.raises(ValueError, match="a conditional discriminator needs the class of each image: condition"):
        discriminator(generator(latents, condition))


def test_the_class_moves_the_image_and_its_logit():
    generator, discriminator = players(preset="mlp", image_size=8, num_classes=3)
    latents, condition = draw(3, 3)
    images = generator(latents, condition)

    assert not torch.allclose(images, generator(latents, (condition + 1) % 3))
    assert not torch.allclose(discriminator(images, condition), discriminator(images, (condition + 1) % 3))


def test_the_logit_of_a_class_is_the_plain_one_and_its_projection():
    _, discriminator = players(preset="mlp", image_size=8, num_classes=3)
    images, condition = torch.rand(4, 3, 8, 8), torch.tensor([0, 2, 1, 2])
    features = discriminator.body(images).detach().numpy()
    weight, bias = (each.detach().numpy() for each in (discriminator.head.weight, discriminator.head.bias))
    classes = discriminator.projection.weight.detach().numpy()[condition.numpy()]

    expected = features @ weight[0] + bias[0] + np.einsum("ij,ij->i", features, classes)
    assert np.allclose(discriminator(images, condition).detach().numpy(), expected, atol=1e-6)


def test_samples_are_the_same_for_one_seed_however_many_and_in_whatever_batches():
    generator, _ = players(preset="dcgan", image_size=16, num_classes=3)
    generator.eval()
    many = generator.sample(9, seed=5)

    torch.testing.assert_close(generator.sample(4, seed=5, batch=3), many[:4], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(generator.sample(4, seed=6), many[:4])
    condition = torch.arange(9) % 3  # classes take turns
    torch.testing.assert_close(generator(generator.latents(9, 5), condition), many, rtol=1e-5, atol=1e-6)


def test_a_discriminator_that_is_attached_is_no_part_of_the_generator():
    generator, discriminator = players(preset="mlp", image_size=8)
    before = state_of(generator)
    attach(generator, discriminator)

    assert generator.adversary is discriminator
    assert_same_bits(generator.state_dict(), before)
    assert not any(each is discriminator for each in generator.modules())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"preset": "stylegan"}, "preset 'stylegan' is not one of dcgan, resnet, mlp"),
        ({"image_size": 7}, "image_size 7 is not from 8 to 256"),
        ({"image_size": 257}, "image_size 257 is not from 8 to 256"),
        ({"num_channels": 2}, "num_channels 2 is neither 1 (grey) nor 3 (colour)"),
        ({"generator_norm": "layer"}, "generator_norm 'layer' is neither batch nor none"),
        ({"latent_dim": 0}, "latent_dim is 0; it must be positive"),
        ({"channels": -1}, "channels is -1; it must be positive"),
        ({"preset": "mlp", "hidden_sizes": []}, "hidden_sizes is []; it must be positive"),
        ({"preset": "mlp", "hidden_sizes": [4, 0]}, "hidden_sizes is [4, 0]; it must be positive"),
        ({"num_classes": -1}, "num_classes is -1; it must be 0 or more"),
        ({"num_classes": 2, "embedding_dim": 0}, "embedding_dim is 0; it must be positive"),
        ({"initializer_range": -0.1}, "initializer_range is -0.1; it must be positive"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(options, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        GANConfig(**options)
