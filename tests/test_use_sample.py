"""Drawing from a run: what is written where, alike from one seed, and refusals of one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from finetune import reuse
from finetune.cli import main
from finetune.errors import UserError
from finetune.task import Columns


class Drawing:
    """A task whose images count up from the seed, and whose model draws nothing from the global generator."""

    def columns(self):
        return Columns(texts=(), image="image")

    def generate(self, model, processor, count, seed):
        return np.stack([np.full((4, 4, 1), seed + number, dtype=np.uint8) for number in range(count)])

    def interpolate(self, model, processor, lines, steps, seed):
        return np.zeros((lines * steps, 4, 4, 3), dtype=np.uint8)

    def traverse(self, model, processor, steps, seed):
        return np.zeros((3 * steps, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run of images, without the model behind it."""
    run = tmp_path / "drawn"
    run.mkdir()
    recipe = SimpleNamespace(task=Drawing(), train=SimpleNamespace(device="cpu"))
    monkeypatch.setattr(reuse.artefact, "open_run", lambda path: path)
    monkeypatch.setattr(reuse, "load_run", lambda path, overrides: (recipe, torch.nn.Identity(), None))
    return run


def test_a_grid_lies_in_the_run_unless_it_is_wanted_elsewhere(folder, tmp_path):
    assert reuse.sample(folder) == folder / "samples" / "sample.png"
    with Image.open(folder / "samples" / "sample.png") as image:
        assert image.size == (8 * 5 - 1, 8 * 5 - 1)
        assert np.asarray(image)[5, 5, 0] == 13 + 9
    assert reuse.sample(folder, count=5, grid=tmp_path / "grid.png", seed=40) == tmp_path / "grid.png"
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (3 * 5 - 1, 2 * 5 - 1)
        assert np.asarray(image)[0, 0, 0] == 40


def test_walks_lie_line_by_line_beside_the_samples(folder):
    for given, name, lines in (
        ({"interpolate": True, "count": 4}, "interpolate", 4),
        ({"traverse": True}, "traverse", 3),
    ):
        path = reuse.sample(folder, **given)
        assert path == folder / "samples" / f"sample-{name}.png"
        with Image.open(path) as image:
            assert image.size == (10 * 5 - 1, lines * 5 - 1)


def test_a_folder_gets_one_file_an_image(folder, tmp_path):
    assert reuse.sample(folder, count=12, output=tmp_path / "many") == tmp_path / "many"

    files = sorted((tmp_path / "many").iterdir())
    assert [each.name for each in files] == [f"{number:02}.png" for number in range(1, 13)]
    with Image.open(files[3]) as image:
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("L", (4, 4), 16)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": 0}, "--count is 0"),
        ({"interpolate": True, "traverse": True}, "exclude each other"),
        ({"traverse": True, "count": 3}, "--count says nothing to --traverse"),
        ({"grid": Path("x.jpg")}, "--grid: x.jpg should end in .png"),
        ({"grid": Path("nowhere/x.png")}, "there is no folder nowhere"),
        ({"output": Path("x.png")}, "should be a folder"),
        ({"output": Path("nowhere/x")}, "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(folder, given, said):
    with pytest.raises(UserError, match=said):
        reuse.sample(folder, **given)


def test_texts_are_printed_or_written_as_rows_and_one_seed_draws_the_same(run, tmp_path, capsys):
    trained = run("causal-lm", task={"prompts": ["a", "the film"], "sample_tokens": 4})
    capsys.readouterr()
    before = torch.get_rng_state()

    assert main(["sample", str(trained), "--count", "3", "--output", str(tmp_path / "a.jsonl")]) == 0
    assert main(["sample", str(trained), "--count", "3", "--output", str(tmp_path / "b.jsonl")]) == 0
    assert capsys.readouterr().out == ""
    assert main(["sample", str(trained), "--count", "3"]) == 0
    printed = capsys.readouterr().out
    rows = [json.loads(line)["text"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]

    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert printed.rstrip("\n").split("\n---\n") == [*rows[:-1], rows[-1].rstrip("\n")]
    assert [text.startswith(("a", "the film")) for text in rows] == [True] * 3
    assert torch.equal(torch.get_rng_state(), before)
    assert main(["sample", str(trained), "--seed", "14", "--output", str(tmp_path / "c.jsonl")]) == 0
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 8


def test_what_a_run_cannot_draw_is_said(run, tmp_path, capsys):
    trained = run("causal-lm")

    assert main(["sample", str(trained), "--interpolate"]) == 2
    assert "causal-lm has no latent space" in capsys.readouterr().err
    assert main(["sample", str(trained), "--count", "1", "--grid", str(tmp_path / "x.png")]) == 2
    assert "--grid: this run writes texts" in capsys.readouterr().err
    assert main(["sample", str(run("text-classification", train={"output_dir": str(tmp_path / "other")}))]) == 2
    assert "text-classification generates nothing" in capsys.readouterr().err
