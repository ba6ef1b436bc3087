"""What the card of a run says of an audit that lies beside it."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import test_auditing
from test_auditing import result

from finetune import artefact
from finetune.auditing import canaries as planting
from finetune.auditing import exposure
from finetune.cli import main
from finetune.publishing.audited import audited, trained_as
from finetune.recipe import Recipe

recipe = test_auditing.recipe  # the fixture

FILES = {"/rows/train.jsonl": {"sha256": "1"}, "/rows/validation.jsonl": {"sha256": "2"}}
TOLD = {"auc": 0.5, "low": 0.4, "high": 0.6}
LORA = {"peft_type": "LORA", "r": 4}
PART = "What it keeps"


@pytest.fixture
def beside(sections, write_recipe, tmp_path):
    """Return a function to what the card is told of an audit of one recipe that lies beside a run of another."""
    folder = tmp_path / "run"

    def read(**changes):
        return Recipe.read(write_recipe(sections("text-classification", "whole", **changes)))

    def look(mine, of=None, base="b", was="b", files=FILES):
        (tmp_path / "run-audit").mkdir(exist_ok=True)
        folder.mkdir(exist_ok=True)
        own = read(**mine)
        facts = {"rows": 3, "held_out": "test", "base": was, "trained_as": trained_as(read(**(of or {})), files)}
        found = {"verdict": ["Rows: …"], "facts": facts, "membership": {"loss": TOLD}}
        artefact.write_json(tmp_path / "run-audit" / "audit.json", found)
        artefact.write_json(folder / artefact.DATA, {"fingerprints": {**FILES, "/rows/test.jsonl": {"sha256": "3"}}})
        artefact.write_json(folder / artefact.ENVIRONMENT, {"base_weights": base})
        return audited(folder, own)

    return look


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": LORA},
        {"train": {"dp": {"epsilon": 8, "delta": 1e-5, "max_grad_norm": 1}}},
        {"train": {"seed": 7}},
        {"train": {"weight_decay": 0.1}},
        {"data": {"max_train_rows": 5}},
        {"task": {"max_length": 16}},
    ],
)
def test_an_option_that_one_of_audit_and_run_has_makes_the_audit_another_ones(beside, change):
    assert beside({}) is not None
    assert beside(change, change) is not None
    assert beside(change) is None
    assert beside({}, change) is None


def test_an_audit_of_other_rows_or_of_another_base_is_another_ones(beside):
    assert beside({}, files={}) is not None
    assert beside({}, files={"/rows/train.jsonl": {"sha256": "4"}}) is None
    assert beside({}, base="c") is None
    assert beside({}, was=None) is None
    assert beside({"train": {"report_to": "none", "max_hours": 3}}) is not None  # change no weight


@pytest.mark.parametrize("damage", [
    "", "{", "[]", "null", "[" * 100_000, '{"verdict": []}', '{"facts": {"trained_as": null}}', b"\xff\xfe",
    {"verdict": None}, {"membership": {"loss": {"auc": None}}}, {"canaries": {}}, {"facts": {"rows": 3}},
    {"facts": {"rows": 3, "held_out": "test", "trained_as": {"task": {"kind": "text-classification"}}}},
])  # fmt: skip
def test_an_audit_that_cannot_be_read_is_none(beside, tmp_path, damage):
    assert beside({}) is not None
    place = tmp_path / "run-audit" / "audit.json"
    if isinstance(damage, dict):
        damage = json.dumps(json.loads(place.read_text()) | damage)
    place.write_bytes(damage if isinstance(damage, bytes) else damage.encode())

    found = audited(tmp_path / "run", Recipe.read(tmp_path / "recipe.yaml"))

    assert found is None


def test_a_training_ends_well_beside_a_file_that_is_no_audit(recipe, tmp_path):
    (tmp_path / "run-audit").mkdir()
    (tmp_path / "run-audit" / "audit.json").write_text('{"facts": {}}')

    assert main(["train", str(recipe("text-classification", rows=40))]) == 0

    assert artefact.status(tmp_path / "run") == "finished"


def test_what_an_audit_keeps_of_its_recipe_tells_no_path_and_no_text(sections, write_recipe):
    made = Recipe.read(write_recipe(sections("text-classification", "whole")))

    kept = json.dumps(trained_as(made, FILES))

    assert "/" not in kept
    assert str(made.data.train) not in kept
    assert made.task.kind not in kept


@pytest.mark.parametrize("kind", ["text-classification", "question-answering"])
def test_an_audit_before_the_training_is_of_the_run_with_what_training_settles(
    sections, write_recipe, home, tmp_path, kind
):
    changes = {"task": {"can_be_none": True}} if kind == "question-answering" else {"adapter": LORA}
    made = sections(kind, "whole", **changes)
    path = write_recipe(made)
    assert main(["audit", str(path)]) == 0
    assert main(["train", str(path)]) == 0
    run = tmp_path / "run"
    assert PART in (run / "README.md").read_text(encoding="utf-8")
    if kind == "question-answering":
        assert Recipe.read(run / "recipe.yaml").task.threshold is not None

    assert audited(run, Recipe.read(run / "recipe.yaml")) is not None  # as publish reads it


def test_the_figures_of_a_run_are_of_its_weights(recipe, home, tmp_path, monkeypatch):
    path = recipe("text-classification", rows=40, train={"num_train_epochs": 1})
    run, card = tmp_path / "run", tmp_path / "run" / "README.md"
    assert main(["train", str(path)]) == 0
    monkeypatch.chdir(run)
    assert main(["audit", ".", "--output", os.path.abspath(tmp_path / "run-audit")]) == 0
    assert PART in card.read_text(encoding="utf-8")
    assert main(["train", str(path), "--train.overwrite", "true"]) == 0
    assert PART in card.read_text(encoding="utf-8")  # the same seed has made the same weights

    from transformers import AutoModel

    base = tmp_path / "base"
    shutil.copytree(home / "bert", base)
    elsewhere = ["--model.path", str(base), "--train.overwrite", "true"]
    shutil.rmtree(tmp_path / "run-audit")
    assert main(["train", str(path), *elsewhere]) == 0
    assert main(["audit", str(run)]) == 0
    assert PART in card.read_text(encoding="utf-8")
    model = AutoModel.from_pretrained(base)
    model.get_input_embeddings().weight.data *= 1.5
    model.save_pretrained(base)
    assert main(["train", str(path), *elsewhere]) == 0
    assert PART not in card.read_text(encoding="utf-8")


def test_the_card_of_a_run_of_another_recipe_is_left_as_it_is(recipe, tmp_path):
    path = recipe("text-classification", rows=40, train={"num_train_epochs": 1})
    card = tmp_path / "run" / "README.md"
    assert main(["train", str(path)]) == 0
    card.write_text("By hand.")

    assert main(["audit", str(path), "--train.learning_rate", "1e-4"]) == 0

    assert card.read_text() == "By hand."


def test_the_card_says_how_far_secrets_are_exposed_by_an_audit_of_this_very_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(planting, "CANDIDATES", 100)
    monkeypatch.setattr(exposure, "CANDIDATES", 100)
    path = recipe("causal-lm", rows=40, train={"num_train_epochs": 1})
    asked = ["--canaries", "5", "--output", str(tmp_path / "run-audit")]
    assert main(["audit", str(path), *asked[:2], "--train.learning_rate", "1e-4"]) == 0
    assert main(["train", str(path)]) == 0
    card = tmp_path / "run" / "README.md"
    assert "What it keeps" not in card.read_text(encoding="utf-8")  # with another learning rate it is another model
    shutil.rmtree(tmp_path / "run-audit")

    assert main(["audit", str(path), *asked]) == 0

    said, found = card.read_text(encoding="utf-8"), result(tmp_path / "run-audit")
    for times, name in (("0", "never"), ("1", "1 ×"), ("4", "4 ×"), ("16", "16 ×")):
        each = found["canaries"][times]
        assert f"| {name} | {each['exposure']:.2f} | {each['low']:.2f} to {each['high']:.2f} | 5 |" in said
    assert f"Chance is {exposure.CHANCE:.2f}; " in said
    assert f"with {found['facts']['planted']} rows of random secrets among its 40 training rows" in said
    assert f"| loss | {found['membership']['loss']['auc']:.3f} |" in said
    assert all(f"- {line}" in said for line in found["verdict"])
