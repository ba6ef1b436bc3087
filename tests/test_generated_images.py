"""A generator of images is examined against held-out ones, beside real training images and noise in their place."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.datasets import load_digits

from finetune.errors import UserError
from finetune.evaluation.options import EvaluateOptions
from finetune.tasks.extractor import Extractor, check_extractor, load_extractor
from finetune.tasks.generated import FIRST, LAST, examine_generator, pixels

LESS = ("fcd", "kcd", "c2st_features", "c2st_pixels", "swd")


def encoded(images):
    return Dataset.from_dict({"image": [image.tobytes() for image in images]})


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], labels[order]


@pytest.fixture(scope="module")
def classifier(digits, tmp_path_factory):
    """A folder with a convolutional classifier of digits that has learned for a second."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("runs") / "small"
    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=10,
        downsample_in_first_stage=False, image_size=8,
    )  # fmt: skip
    model = ResNetForImageClassification(config).train()
    pixels = torch.from_numpy(digits[0][400:1000]).permute(0, 3, 1, 2).float() / 127.5 - 1
    labels = torch.from_numpy(digits[1][400:1000])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(60):
        rows = torch.arange(step * 100, step * 100 + 100) % 600
        model(pixel_values=pixels[rows], labels=labels[rows]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def splits(digits):
    return {"train": encoded(digits[0][:500]), "test": encoded(digits[0][1400:])}


def taking(images, seed=1):
    """Return a generator of so many of these images, in a drawn order."""
    return lambda count: images[np.random.default_rng(seed).permutation(len(images))[:count]]


def options(**given):
    return EvaluateOptions(**{"resamples": 0, "generated": 300, **given})


def test_the_first_summaries_all_rate_uniform_noise_worse_than_real_images(digits, splits, classifier):
    found = examine_generator(taking(digits[0][500:1000]), splits, options(extractor=str(classifier)))
    noise, real = found.baselines["noise"], found.baselines["real"]

    first = [name for name in FIRST if name not in ("fid", "kid")]  # of a network that is not fetched here
    assert list(found.scores["test"]) == [*first, *LAST]
    for name in first:
        worse = noise[name].value - real[name].value
        assert worse > 0 if name in LESS else worse < 0, name
    assert noise["fcd"].value > 20 * real["fcd"].value
    assert noise["coverage"].value < 0.3 * real["coverage"].value


def test_fresh_real_images_are_as_good_as_the_floor(digits, splits, classifier):
    found = examine_generator(taking(digits[0][500:1000]), splits, options(extractor=str(classifier), resamples=100))
    own, real = found.scores["test"], found.baselines["real"]

    assert own["c2st_pixels"].low < 0.55
    assert own["coverage"].value == pytest.approx(real["coverage"].value, abs=0.06)
    assert own["fcd"].value < 2 * real["fcd"].value
    assert own["memorisation"].low < 1.05
    assert own["memorisation"].high > 0.9
    assert found.alarms == ()


def test_half_of_the_classes_show_in_coverage_and_set_off_an_alarm(digits, splits, classifier):
    images, labels = digits
    low = images[500:1400][labels[500:1400] < 5]
    found = examine_generator(taking(low), splits, options(extractor=str(classifier)))

    assert found.scores["test"]["coverage"].value < 0.6
    assert found.scores["test"]["fcd"].value > 5 * found.baselines["real"]["fcd"].value
    assert any("coverage is" in line for line in found.alarms)
    assert any("5 of 10 classes are hardly ever generated" in line for line in found.alarms)


def test_copies_of_training_images_are_named(digits, splits):
    found = examine_generator(taking(digits[0][:500]), splits, options())

    assert found.scores["test"]["memorisation"].value == 0.0
    assert found.facts["exact_copies"] == 300
    assert any("copies" in line for line in found.alarms)
    assert found.pictures["nearest"].pixels.shape == (17, 89, 3)


def test_one_image_again_and_again_sets_off_an_alarm(digits, splits):
    found = examine_generator(lambda count: digits[0][[0] * count], splits, options())

    assert any("only 1 of 300" in line for line in found.alarms)


def test_without_extractor_and_train_split_it_is_said_what_is_left_out(digits, splits, capsys):
    found = examine_generator(taking(digits[0]), {"test": splits["test"]}, options())
    said = capsys.readouterr().out

    assert tuple(found.scores["test"]) == ("c2st_pixels", "swd")
    assert set(found.baselines) == {"noise"}
    assert len(found.facts["left_out"]) == 2
    assert "--evaluate.extractor RUN" in said
    assert "training images" in said


def test_what_is_found_is_the_same_each_time(digits, splits, classifier):
    first, second = (
        examine_generator(taking(digits[0]), splits, options(extractor=str(classifier), generated=60)).scores
        for _ in range(2)
    )

    assert first == second


def test_images_come_out_of_inputs_as_they_went_in(digits):
    colour = np.random.default_rng(0).integers(0, 256, (5, 9, 9, 3), dtype=np.uint8)

    assert (pixels(encoded(colour)) == colour).all()
    assert (pixels(encoded(digits[0]), 7) == digits[0][:7]).all()


# ---- the extractor


def test_the_features_are_what_the_last_linear_layer_is_given(digits, classifier):
    extractor = load_extractor(str(classifier))
    images = digits[0][:20]
    seen = extractor.look(images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    model = extractor.model.cpu()
    with torch.no_grad():
        logits = model(pixel_values=(pixels - 0.5) / 0.5).logits
    head = model.classifier[-1]

    assert seen.features.shape == (20, 32)
    torch.testing.assert_close(head(torch.from_numpy(seen.features)).detach(), logits)
    torch.testing.assert_close(torch.from_numpy(seen.probabilities), logits.softmax(1))


def test_the_extractors_id_is_the_sha256_of_its_weights_file(classifier):
    extractor = load_extractor(str(classifier))
    digest = hashlib.sha256((classifier / "model.safetensors").read_bytes()).hexdigest()

    assert extractor.digest == digest
    assert extractor.id == f"small@{digest[:12]}"


@pytest.mark.parametrize(("size", "channels"), [(8, 3), (28, 1), (16, 3), (8, 1)])
def test_images_of_another_size_or_number_of_channels_are_brought_to_the_extractors(classifier, size, channels):
    extractor = load_extractor(str(classifier))
    images = np.full((4, size, size, channels), 200, dtype=np.uint8)
    given = extractor.prepared(torch.from_numpy(images))

    assert given.shape == (4, 1, 8, 8)
    torch.testing.assert_close(given, torch.full_like(given, (200 / 255 - 0.5) / 0.5))
    assert ("resized" in extractor.facts(size, channels)) == (size != 8)


def test_grey_images_are_repeated_for_an_extractor_of_colour(classifier):
    model = load_extractor(str(classifier)).model
    extractor = Extractor(model, "x", "0", size=8, channels=3, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 0.5))
    given = extractor.prepared(torch.full((1, 8, 8, 1), 255, dtype=torch.uint8))[0, :, 0, 0]

    torch.testing.assert_close(given, torch.tensor([0.9, 0.8, 1.4]))


def test_what_is_no_extractor_is_refused_in_one_line(tmp_path, classifier):
    with pytest.raises(UserError, match=r"evaluate\.extractor: .* holds no preprocessor_config"):
        check_extractor(str(tmp_path))
    with pytest.raises(UserError, match=r"evaluate\.extractor: there is no folder .*small.*Did you mean"):
        check_extractor(f"{classifier}m")
    (tmp_path / "preprocessor_config.json").write_text((classifier / "preprocessor_config.json").read_text())
    with pytest.raises(UserError, match=r"evaluate\.extractor: .* holds no config\.json"):
        load_extractor(str(tmp_path))
