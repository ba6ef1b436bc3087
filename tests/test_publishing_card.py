"""The card of a run."""

from __future__ import annotations

import re

import pytest
import torch
import yaml


@pytest.fixture
def trained(run):
    return run("image-vae")


def test_the_card_shows_the_grid_and_every_score_with_its_sample_size(trained):
    card = (trained / "README.md").read_text()

    assert yaml.safe_load(card.split("---")[1])["tags"] == ["finetune", "image-vae", "finetune-vae"]
    assert (trained / re.search(r"!\[.*\]\((.*)\)", card)[1]).exists()
    rows = [line for line in card.splitlines() if line.startswith("| ") and line.count("|") > 4]
    assert len(rows) > 4
    assert {line.count("|") for line in rows} == {rows[0].count("|")}
    assert "| 22 |" in rows[1]


def test_the_card_names_no_folder_of_the_machine_that_trained(trained):
    assert str(trained.parent) not in (trained / "README.md").read_text()


@pytest.mark.parametrize("condition", [None, "label"])
def test_the_code_on_the_card_runs_as_printed(run, monkeypatch, condition):
    trained = run("image-vae", task={"condition": condition}, train={"max_steps": 1})
    card = (trained / "README.md").read_text()
    monkeypatch.chdir(trained.parent)
    names: dict = {}

    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)  # noqa: S102

    assert names["images"].shape == (16, 1, 8, 8)
    assert torch.isfinite(names["images"]).all()
