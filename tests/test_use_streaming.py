"""Training rows that do not fit into memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune import artefact
from finetune.cli import main


@pytest.mark.parametrize("kind", ["text-classification", "causal-lm"])
def test_a_streamed_run_trains_and_is_scored(sections: Any, write_recipe: Any, kind: str):
    more = {"labels": ["negative", "positive"], "problem": "single"} if kind == "text-classification" else {}
    made = sections(kind, data={"streaming": True}, train={"max_steps": 3}, task=more)
    assert main(["train", str(write_recipe(made))]) == 0

    run = Path(made["train"]["output_dir"])
    assert artefact.status(run) == "finished"
    assert json.loads((run / artefact.SCORES).read_text())["test"]


def test_a_streamed_classifier_says_that_its_labels_must_be_given(
    sections: Any, write_recipe: Any, capsys: pytest.CaptureFixture[str]
):
    made = sections("text-classification", data={"streaming": True}, train={"max_steps": 3})
    assert main(["train", str(write_recipe(made))]) == 2
    assert "task.labels and task.problem must be given where data.train is streamed" in capsys.readouterr().err
