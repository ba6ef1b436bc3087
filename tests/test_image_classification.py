"""Image classifiers: what they learn, what they are told, what they say, and what a run of them leaves."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from finetune.cli import main
from finetune.loading import ModelOptions, load_image_processor
from finetune.models.image_classifier import ImageClassifier, ImageClassifierConfig
from finetune.models.noise import keys
from finetune.recipe import Recipe
from finetune.run import train
from finetune.tasks.images import Collate, flipped, normalisation

LEARN = {"optim": "adamw_torch", "learning_rate": 0.01, "num_train_epochs": 6}


@pytest.fixture
def picture_run(run: Any) -> Path:
    return run("image-classification", train=LEARN)


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A folder with a tiny ViT for 16 x 16 colour images, of two other classes, and its processor."""
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16,
                       patch_size=8, num_labels=5)  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    about = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4],
             "size": {"height": 16, "width": 16}}  # fmt: skip
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(about))
    return tmp_path / "vit"


@pytest.mark.parametrize("preset", ["lenet", "resnet"])
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (17, 3), (32, 3), (256, 1)])
def test_every_size_and_colour_has_features_and_one_logit_a_class(preset, size, channels):
    config = ImageClassifierConfig(preset=preset, image_size=size, num_channels=channels, num_labels=7)
    model = ImageClassifier(config).eval()
    images = torch.rand(2, channels, size, size)

    with torch.no_grad():
        features, said = model.features(images), model(images, labels=torch.tensor([0, 6]))

    assert features.shape == (2, config.hidden or config.channels[-1])
    torch.testing.assert_close(model.classifier(features), said.logits)
    torch.testing.assert_close(said.loss, torch.nn.functional.cross_entropy(said.logits, torch.tensor([0, 6])))


def test_a_new_lenet_is_drawn_as_torch_draws_its_layers():
    torch.manual_seed(0)
    model = ImageClassifier(ImageClassifierConfig(image_size=8, num_labels=10))

    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            torchs = copy.deepcopy(layer)
            torchs.reset_parameters()
            for ours, theirs in zip(layer.parameters(), torchs.parameters(), strict=True):
                assert ours.std().item() == pytest.approx(theirs.std().item(), rel=6 * ours.numel() ** -0.5)
                assert ours.abs().max() <= layer.weight[0].numel() ** -0.5


@pytest.mark.parametrize("preset", ["lenet", "resnet"])
def test_an_images_features_do_not_depend_on_those_beside_it(preset):
    model = ImageClassifier(ImageClassifierConfig(preset=preset, image_size=12)).train()
    images = torch.rand(5, 1, 12, 12)

    torch.testing.assert_close(model.features(images)[1:2], model.features(images[1:2]))


def test_the_auto_classes_find_the_family_and_give_back_its_bits(tmp_path):
    model = ImageClassifier(ImageClassifierConfig(preset="resnet", image_size=8, channels=[8, 16], num_labels=3))
    model.save_pretrained(tmp_path)

    for auto in (AutoModel, AutoModelForImageClassification):
        again = auto.from_pretrained(tmp_path)
        assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
    config = AutoConfig.from_pretrained(tmp_path)
    assert (type(config), config.channels, config.num_labels) == (ImageClassifierConfig, [8, 16], 3)


@pytest.mark.parametrize(
    "wrong", [{"preset": "vgg"}, {"image_size": 4}, {"num_channels": 2}, {"channels": []}, {"channels": [4] * 9}]
)
def test_a_classifier_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"preset|image_size|channels"):
        ImageClassifierConfig(**wrong)


def test_images_of_another_size_are_refused_by_the_model():
    with pytest.raises(ValueError, match=r"images of shape \(1, 9, 9\) where the model takes \(1, 8, 8\)"):
        ImageClassifier(ImageClassifierConfig(image_size=8))(torch.rand(1, 1, 9, 9))


def test_flipping_mirrors_about_half_of_the_images_by_their_keys_alone():
    images, of = torch.rand(200, 3, 8, 8), keys(1, 2, torch.arange(200))
    turned = flipped(images, of)
    mirrored = (turned == images.flip(-1)).flatten(1).all(1)

    assert 70 < int(mirrored.sum()) < 130
    assert torch.equal(turned[~mirrored], images[~mirrored])
    assert torch.equal(flipped(images[50:60], of[50:60]), turned[50:60])
    assert not torch.equal(flipped(images, keys(1, 3, torch.arange(200))), turned)


def test_a_batch_is_what_the_processor_itself_makes_of_the_images(vit):
    processor = load_image_processor(ModelOptions(path=str(vit)), 1, 1, 0, 1)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    theirs = processor([Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    inputs = [{"image": image.tobytes(), "label": number} for number, image in enumerate(images)]

    ours = Collate(*normalisation(processor), column="label")(inputs)

    torch.testing.assert_close(ours["pixel_values"], theirs)
    assert ours["labels"].tolist() == [0, 1, 2]


def test_a_processor_with_another_scale_is_followed(vit):
    processor = load_image_processor(ModelOptions(path=str(vit)), 1, 1, 0, 1)
    processor.rescale_factor = 1 / 127.5
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    theirs = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]

    torch.testing.assert_close(Collate(*normalisation(processor))([{"image": image.tobytes()}])["pixel_values"], theirs)
    processor.do_normalize = False
    theirs = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(Collate(*normalisation(processor))([{"image": image.tobytes()}])["pixel_values"], theirs)


def test_a_new_processor_is_saved_and_read_as_it_was(tmp_path):
    made = load_image_processor(ModelOptions(), 12, 3, 0.5, 0.25)
    made.save_pretrained(tmp_path)
    again = load_image_processor(ModelOptions(path="other", tokenizer=str(tmp_path)), 8, 1, 0, 1)

    assert again.to_json_string() == made.to_json_string()
    assert (list(again.image_mean), list(again.image_std)) == ([0.5] * 3, [0.25] * 3)
    assert (again.size["height"], again.size["width"]) == (12, 12)


def test_a_run_learns_and_leaves_what_is_needed_to_use_it_elsewhere(picture_run):
    scores = json.loads((picture_run / "scores.json").read_text())

    assert scores["test"]["accuracy"]["value"] == 1.0
    assert set(scores["baselines"]) == set()  # EVALUATE of the tiny recipes leaves them out
    model = AutoModelForImageClassification.from_pretrained(picture_run)
    assert model.config.id2label == {0: "0", 1: "1"}
    assert (picture_run / "preprocessor_config.json").is_file()
    recipe = yaml.safe_load((picture_run / "recipe.yaml").read_text())
    assert recipe["task"]["image_size"] == recipe["data"]["image"]["size"] == 8
    assert recipe["task"]["labels"] == ["0", "1"]


def test_rivals_on_pixels_are_measured_on_the_same_images(run):
    folder = run("image-classification", train=LEARN, evaluate={"baselines": True})
    baselines = json.loads((folder / "scores.json").read_text())["baselines"]

    assert baselines["majority"]["accuracy"]["value"] == 0.5
    assert baselines["linear"]["accuracy"]["value"] == 1.0  # which half is bright
    assert baselines["majority"]["accuracy_gap"]["value"] == 0.5


def test_the_report_has_the_confusion_the_calibration_and_the_surest_mistakes(run):
    folder = run("image-classification", train={"max_steps": 1, "learning_rate": 1e-6})
    page = (folder / "report.html").read_text()

    assert "Calibration" in page
    with Image.open(folder / "samples" / "mistakes.png") as picture:
        assert picture.size[0] >= 56
        assert picture.info["Description"].startswith("Wrong, the surest first, line by line: ")


def test_pictures_of_any_size_are_predicted_with_the_run_alone(picture_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    above = np.zeros((40, 40, 3), np.uint8)
    above[:20] = 255
    Path("new").mkdir()
    for name, image in (("above", above), ("below", above[::-1])):
        Image.fromarray(image).save(f"new/{name}.png")

    assert main(["predict", str(picture_run), "new", "--output", "answers.jsonl"]) == 0
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert {each["row_id"]: each["prediction"] for each in answers} == {"new/above.png": "0", "new/below.png": "1"}
    assert main(["predict", str(picture_run), "new/below.png", "--output", "one.csv"]) == 0


def test_a_run_is_evaluated_on_other_pictures(picture_run, tmp_path, capsys):
    for number in range(4):
        place = tmp_path / "other" / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        image = np.zeros((16, 16), np.uint8)
        image[8 * (number % 2) : 8 * (number % 2) + 8] = 200 + number
        Image.fromarray(image).save(place / f"{number}.png")

    assert main(["evaluate", str(picture_run), "--data.test", str(tmp_path / "other")]) == 0
    assert "1.0000" in capsys.readouterr().out


def test_preview_and_check_show_the_size_and_the_label(sections, write_recipe, capsys):
    recipe = write_recipe(sections("image-classification"))

    assert main(["preview", str(recipe)]) == 0
    assert "train.npz:1 · 1 images\n→ 0 (8 x 8 pixels, grey)" in capsys.readouterr().out
    assert main(["check", str(recipe)]) == 0
    assert "images are 8 x 8 pixels, grey" in capsys.readouterr().out


@pytest.mark.parametrize("adapter", [None, {"peft_type": "LORA", "r": 2}])
def test_a_pretrained_classifier_is_tuned_with_its_own_normalisation(sections, write_recipe, vit, adapter):
    made = sections("image-classification", model={"path": str(vit), "config": None}, train=LEARN,
                    data={"image": {"size": 16, "channels": 3}})  # fmt: skip
    made = {**made, **({"adapter": adapter} if adapter else {})}

    folder = train(Recipe.read(write_recipe(made)))

    assert json.loads((folder / "scores.json").read_text())["test"]["accuracy"]["value"] > 0.8
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == [0.5, 0.4, 0.3]
    assert (folder / "adapter_model.safetensors").exists() is bool(adapter)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"task": {"image_size": 9}}, "task.image_size is 9, and the images have 8; say data.image, or leave it out."),
        ({"task": {"label": "lable"}}, 'has no column "lable"; its columns: "image", "label". Did you mean label?'),
        ({"task": {"image": "img"}}, 'has no column "img"'),
        ({"task": {"labels": ["0", "2"]}}, "column 'label' is '1', and no training row has that label"),
        ({"model": {"config": {"model_type": "finetune-image-classifier", "image_size": 9}}},
         "model.config.image_size is 9, and the images have 8; say data.image."),
        ({"model": {"config": {"model_type": "finetune-image-classifier", "preset": "vgg"}}}, "preset 'vgg'"),
        ({"model": {"config": {"model_type": "finetune-image-classifier", "prset": "lenet"}}}, "Did you mean preset?"),
    ],
)  # fmt: skip
def test_contradictions_between_images_and_options_are_one_line(sections, write_recipe, capsys, changes, line):
    assert main(["train", str(write_recipe(sections("image-classification", **changes)))]) == 2
    assert line in capsys.readouterr().err


def test_a_pretrained_classifier_says_which_images_it_takes(sections, write_recipe, vit, capsys):
    made = sections("image-classification", model={"path": str(vit), "config": None})

    assert main(["train", str(write_recipe(made))]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "data.image: the model takes no images of 8 x 8 pixels, grey" in said
    assert "say data.image: {size: 16, channels: 3}." in said


def test_a_rare_class_weighs_as_much_as_a_frequent_one(sections, write_recipe):
    from finetune.preparation import prepare

    made = sections("image-classification", task={"class_weights": "auto"}, data={"max_train_rows": 9})
    task = prepare(Recipe.read(write_recipe(made)), ("train",)).recipe.task
    counts = {"0": 4, "1": 5} if task.class_weights["0"] > 1 else {"0": 5, "1": 4}

    assert task.class_weights == pytest.approx({name: 9 / (2 * count) for name, count in counts.items()})
    batch = {"pixel_values": torch.zeros(3, 1, 8, 8), "labels": torch.tensor([0, 0, 1]), "keys": torch.zeros(3).long()}
    model = ImageClassifier(ImageClassifierConfig(image_size=8, num_labels=2))
    expected = torch.nn.CrossEntropyLoss(torch.tensor([task.class_weights[name] for name in "01"]))
    total, outputs = task.loss(model, batch)
    torch.testing.assert_close(total / task.weight(batch), expected(outputs.logits, batch["labels"]))
