"""What a run of a GAN leaves, and using it again: both players, pictures, scores, other rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

from finetune.cli import main
from finetune.models.gan import Discriminator

ADAM = {"optim": "adamw_torch", "learning_rate": 2e-3, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
CONVOLUTIONS = {"model_type": "finetune-gan", "preset": "dcgan", "channels": 4, "latent_dim": 4}
CELLS = {
    "plain": ({"loss": "hinge"}, {**CONVOLUTIONS, "spectral_norm": True}),
    "conditional": ({"condition": "label"}, {**CONVOLUTIONS, "generator_norm": "none"}),
}


@pytest.fixture(scope="module")
def runs(home: Path, tmp_path_factory) -> dict[str, Path]:
    """Two finished runs, trained through the command."""
    found = {}
    for name, (task, config) in CELLS.items():
        folder = tmp_path_factory.mktemp(name)
        made = tiny.sections(home, folder / "run", "image-gan", "whole")
        made |= {"task": {"kind": "image-gan", **task}, "model": {"config": config}}
        made["train"] |= {**ADAM, "eval_strategy": "steps", "eval_steps": 2}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(made))
        assert main(["train", str(folder / "recipe.yaml")]) == 0
        found[name] = folder / "run"
    return found


@pytest.fixture(params=CELLS)
def gan_run(runs, request) -> Path:
    return runs[request.param]


def scores(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_run_holds_the_average_the_raw_weights_and_the_other_player(gan_run):
    average, raw = AutoModel.from_pretrained(gan_run), AutoModel.from_pretrained(gan_run, variant="raw")
    discriminator = Discriminator.from_pretrained(gan_run, subfolder="discriminator")
    last = sorted((gan_run / "checkpoints").iterdir())[-1]

    assert last.name == "checkpoint-4"
    of_generator, of_discriminator = (load_file(each / "model.safetensors") for each in (last, last / "discriminator"))
    assert all(torch.equal(raw.state_dict()[name], each) for name, each in of_generator.items())
    assert all(torch.equal(discriminator.state_dict()[name], each) for name, each in of_discriminator.items())
    moved = [name for name, each in average.named_parameters() if not torch.equal(each, raw.state_dict()[name])]
    assert len(moved) == len(list(average.parameters()))
    for name, each in average.named_buffers():
        assert torch.equal(each, raw.state_dict()[name])


def test_a_run_leaves_no_pickle(gan_run):
    left = {path.suffix for path in gan_run.rglob("*") if path.is_file()}

    assert left <= {".json", ".yaml", ".safetensors", ".parquet", ".html", ".md", ".png"}


def test_a_run_has_pictures_before_on_the_way_and_after(gan_run):
    names = {path.name for path in (gan_run / "samples").iterdir()}

    assert {"before.png", "step-000002.png", "step-000004.png", "after.png", "interpolation.png"} <= names
    pictures = [
        np.asarray(Image.open(gan_run / "samples" / f"{name}.png")) for name in ("before", "step-000004", "after")
    ]
    assert not np.array_equal(pictures[0], pictures[2])
    assert np.array_equal(pictures[1], pictures[2])  # the last on the way is the average that is kept


def test_the_card_shows_the_grid_and_its_code_runs(gan_run, monkeypatch):
    card = (gan_run / "README.md").read_text()
    assert "](samples/after.png)" in card
    code = card.split("```python")[1].split("```")[0]
    monkeypatch.chdir(gan_run.parent)
    found: dict = {}
    exec(compile(code, "card", "exec"), found)  # noqa: S102  # what readers are told to run

    images = found["images"]
    assert images.shape[1:] == (1, 8, 8)
    assert images.abs().max() <= 1


def test_scores_and_curves_are_of_both_players(runs):
    plain, conditional = (scores(runs[name]) for name in CELLS)
    assert {"swd", "d_accuracy_held_out", "d_accuracy_fake"} <= set(plain["validation"])
    assert {"swd", "d_accuracy_held_out", "d_accuracy_train", "d_overfitting", "memorisation"} <= set(
        conditional["test"]
    )
    assert "d_accuracy_fake" not in conditional["test"]

    for name, logged in (("plain", {"d_accuracy_real", "d_accuracy_fake"}), ("conditional", {"d_accuracy_pairs"})):
        history = json.loads((runs[name] / "history.json").read_text())
        rows = [row for row in history if "loss" in row]
        assert len(rows) == 4
        assert all({"d_loss", "d_learning_rate", "grad_norm", *logged} <= set(row) for row in rows)
        assert all("eval_swd" in row for row in history if "eval_runtime" in row)


def test_samples_are_drawn_from_a_run(gan_run, tmp_path, capsys):
    grid, walks, folder = tmp_path / "grid.png", tmp_path / "walks.png", tmp_path / "images"

    assert main(["sample", str(gan_run), "--count", "16", "--grid", str(grid)]) == 0
    assert main(["sample", str(gan_run), "--interpolate", "--count", "3", "--grid", str(walks)]) == 0
    assert main(["sample", str(gan_run), "--count", "5", "--output", str(folder)]) == 0
    assert pixels(grid).shape[:2] == (4 * 9 - 1, 4 * 9 - 1)
    assert pixels(walks).shape[:2] == (3 * 9 - 1, 10 * 9 - 1)
    assert len(list(folder.glob("*.png"))) == 5
    with torch.no_grad():
        images = AutoModel.from_pretrained(gan_run).sample(16, seed=13)
    first = pixels(grid)[:8, :8, 0].astype(float)
    assert np.abs(first - (images[0, 0].numpy() + 1) * 127.5).max() <= 0.5001
    assert main(["sample", str(gan_run), "--traverse"]) == 2
    assert "image-gan has no latent space to walk in" in capsys.readouterr().err


def test_a_run_is_evaluated_on_other_images(gan_run, tmp_path, capsys):
    other = tiny.write_images(tmp_path / "other.npz", 12, 9)
    before = scores(gan_run)

    assert main(["evaluate", str(gan_run), "--data.test", str(other)]) == 0
    assert "swd" in capsys.readouterr().out
    assert scores(gan_run) == before
    (found,) = (json.loads(path.read_text()) for path in (gan_run / "evaluations").glob("*.json"))
    assert found["scores"]["test"]["d_accuracy_held_out"]["n"] == 12
    assert found["scores"]["test"]["d_accuracy_train"]["n"] == 12


def test_predictions_are_what_the_discriminator_says_of_each_image(gan_run, tmp_path):
    other, out = tiny.write_images(tmp_path / "other.npz", 6, 9), tmp_path / "answers.jsonl"

    assert main(["predict", str(gan_run), str(other), "--output", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    held = np.load(other)
    images = torch.from_numpy(held["image"]).float()[:, None] / 127.5 - 1
    discriminator = Discriminator.from_pretrained(gan_run, subfolder="discriminator")
    condition = torch.from_numpy(held["label"]) if discriminator.config.num_classes else None
    expected = discriminator(images, condition).tolist()

    assert [row["row_id"] for row in rows] == [f"{other}:{number}" for number in range(1, 7)]
    assert [row["logit"] for row in rows] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_rows_without_the_class_cannot_be_judged_by_a_conditional_player(runs, tmp_path, capsys):
    np.savez(tmp_path / "bare.npz", image=np.load(tiny.write_images(tmp_path / "x.npz", 4, 1))["image"])

    assert main(["predict", str(runs["conditional"]), str(tmp_path / "bare.npz")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune: ")]
    assert len(said) == 1
    assert "label" in said[0]


def test_a_grid_of_a_conditional_generator_has_a_column_a_class(runs):
    with Image.open(runs["conditional"] / "samples" / "after.png") as picture:
        assert picture.width < picture.height  # two columns


def test_a_game_goes_on_from_a_run_with_both_players(runs, sections, write_recipe, tmp_path, capsys):
    made = sections("image-gan", model={"path": str(runs["plain"]), "config": None}, train={"max_steps": 1})
    made["task"] = {"kind": "image-gan", "loss": "hinge", "discriminator_learning_rate": 0.0}

    assert main(["train", str(write_recipe(made))]) == 0
    assert "New, with random weights" not in capsys.readouterr().out
    before, after = (
        load_file(each / "discriminator" / "model.safetensors") for each in (runs["plain"], tmp_path / "run")
    )
    learned = [name for name in before if not name.endswith(("_u", "_v"))]
    assert all(torch.equal(before[name], after[name]) for name in learned)


def test_a_generator_without_its_discriminator_gets_a_new_one_and_this_is_said(
    runs, sections, write_recipe, tmp_path, capsys
):
    AutoModel.from_pretrained(runs["plain"]).save_pretrained(tmp_path / "half")
    made = sections("image-gan", model={"path": str(tmp_path / "half"), "config": None}, train={"max_steps": 1})
    made["task"] = {"kind": "image-gan", "loss": "hinge"}

    assert main(["train", str(write_recipe(made))]) == 0
    assert "New, with random weights: discriminator." in capsys.readouterr().out


def test_without_an_average_there_is_no_raw_variant(run):
    folder = run("image-gan", task={"ema_decay": 0.0}, train={"max_steps": 1})

    assert not (folder / "model.raw.safetensors").exists()
    assert (folder / "discriminator" / "model.safetensors").is_file()
