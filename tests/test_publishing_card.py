"""The card of a run."""

from __future__ import annotations

import json
import re

import pytest
import tiny
import torch
import yaml

from finetune.merging import merge
from finetune.publishing.card import write_card
from finetune.recipe import Recipe


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


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


@pytest.fixture
def classifier(run):
    return run("text-classification", "lora", evaluate={"baselines": True}, publish={"base_model": "jane/bert"})


def test_the_metadata_hold_every_score_with_its_interval_as_scores_json_has_them(classifier):
    scores = json.loads((classifier / "scores.json").read_text())["test"]

    result = metadata((classifier / "README.md").read_text())["model-index"][0]["results"][0]

    assert result["dataset"]["split"] == "test"
    found = {metric["name"]: metric for metric in result["metrics"]}
    assert {"accuracy", "macro_f1", "nll"} <= set(found)
    for name, metric in found.items():
        assert metric["value"] == scores[name]["value"]
        args = metric["args"]
        assert (args["low"], args["high"], args["n"]) == (scores[name]["low"], scores[name]["high"], 22)


def test_the_card_says_what_a_reader_must_know(classifier):
    card = (classifier / "README.md").read_text()
    digest = json.loads((classifier / "data.json").read_text())["fingerprints"]

    for part in (
        "| 0 | negative |", "| 1 | positive |",  # the label map
        "majority class", "TF-IDF + linear model",  # rivals
        "Calibration error", "rows right",  # as sure as right, and by length
        "## Intended use and limits", "Licence of the data: not stated",
        "A LORA adapter of `jane/bert`", "learning_rate: 0.05", "torch 2", "- Seed: 13", "Reloaded in the same process",
        "`finetune train recipe.yaml`",
        *(facts["sha256"][:16] for facts in digest.values()),
    ):  # fmt: skip
        assert part in card, part


def test_what_the_author_says_stands_on_the_card(run):
    given = {
        "license": "other", "license_name": "our-own", "language": ["en", "de"], "datasets": ["jane/rows"],
        "data_license": "cc-by-4.0", "intended_use": "For film reviews.", "limits": "Not for people.",
        "base_model": "none",
    }  # fmt: skip

    card = (run("text-classification", "whole", publish=given) / "README.md").read_text()

    found = metadata(card)
    assert (found["license"], found["license_name"], found["language"]) == ("other", "our-own", ["en", "de"])
    assert found["datasets"] == ["jane/rows"]
    assert "base_model" not in found
    for part in ("For film reviews.", "Not for people.", "cc-by-4.0", "jane/rows", "Trained from weights that are not"):
        assert part in card


@pytest.mark.parametrize(
    ("label", "said"),
    [("the number", "float(logits[0])"), ("some labels", "logits.sigmoid()"), ("one label", "logits.argmax()")],
)
def test_the_code_reads_the_logits_as_they_are_meant(run, tmp_path, label, said):
    kinds = {
        "the number": lambda number: number / 10,
        "some labels": lambda number: [["a"], ["a", "b"]][number % 2],
        "one label": lambda number: "ab"[number % 2],
    }
    files = {}
    for name, seed in (("train", 1), ("validation", 2), ("test", 3)):
        rows = tiny.sentences(24, seed)
        for number, row in enumerate(rows):
            row["label"] = kinds[label](number)
        files[name] = str(tiny.write_rows(tmp_path / f"{name}.jsonl", rows))

    card = (run("text-classification", "whole", data=files) / "README.md").read_text()

    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    compile(code, "card", "exec")
    assert said in code


def test_the_energy_that_codecarbon_estimated_stands_on_the_card(classifier):
    (classifier / "emissions.csv").write_text("project_name,emissions,energy_consumed\na,0.002,0.01\na,0.001,0.02\n")

    write_card(classifier, Recipe.read(classifier / "recipe.yaml"))

    card = (classifier / "README.md").read_text()
    assert "0.03 kWh, 0.003 kg of CO₂" in card
    assert metadata(card)["co2_eq_emissions"]["emissions"] == pytest.approx(3.0)  # grams


def test_a_merged_run_says_what_it_was_made_of(run):
    merged = merge(run("text-classification", "lora", publish={"base_model": "jane/bert"}))

    card = (merged / "README.md").read_text()

    assert "Made of `run` by `finetune merge`; logits moved by at most" in card
    assert metadata(card)["base_model_relation"] == "finetune"
    assert "PeftModel" not in card


def test_more_labels_than_a_page_holds_are_counted(run, tmp_path):
    files = {}
    for name, seed in (("train", 1), ("validation", 2), ("test", 3)):
        rows = tiny.sentences(220, seed)
        for number, row in enumerate(rows):
            row["label"] = f"label-{number % 110:03}|<b>"
        files[name] = str(tiny.write_rows(tmp_path / f"{name}.jsonl", rows))

    card = (run("text-classification", "whole", data=files) / "README.md").read_text()

    assert "And 10 more, in `labels.json`." in card
    assert "| 7 | label-007\\|&lt;b> |" in card


def test_an_adapter_whose_base_has_no_name_on_the_hub_names_none(run, home):
    card = (run("text-classification", "lora") / "README.md").read_text()

    assert "base_model" not in metadata(card)
    assert "`publish.base_model` has yet to name" in card
    assert str(home) not in card
