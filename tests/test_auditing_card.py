"""What the card of a run says of an audit that lies beside it."""

from __future__ import annotations

import shutil

import test_auditing
from test_auditing import result

from finetune.auditing import canaries as planting
from finetune.auditing import exposure
from finetune.cli import main

recipe = test_auditing.recipe  # the fixture


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
