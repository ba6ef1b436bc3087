from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune import artefact
from finetune.errors import CheckFailed
from finetune.publication import publish

BATCHES = [{"input_ids": torch.arange(6).reshape(2, 3)}, {"input_ids": torch.arange(3).reshape(1, 3)}]


def logits(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return batch["input_ids"].float() * 2


def off_by(gap: float):
    return lambda batch: logits(batch) + gap


@pytest.mark.parametrize(("half", "gap", "same"), [
    (False, 0.0, True), (False, 1e-3, False), (True, 0.0, True), (True, 0.02, True), (True, 0.5, False),
])  # fmt: skip
def test_a_reloaded_model_is_held_to_what_the_references_precision_tells(
    tmp_path: Path, half: bool, gap: float, same: bool
):
    artefact.write_reference(tmp_path, artefact.reference(BATCHES, logits, half))

    found = artefact.compare(tmp_path, off_by(gap), "same")

    assert found.same is same
    assert found.rows == 3
    assert found.max_difference == pytest.approx(gap, abs=1e-6)


@pytest.mark.parametrize("gap", [0.5, float("inf"), float("nan")])
def test_a_verdict_that_a_run_differs_is_written_before_it_is_raised(tmp_path: Path, gap: float):
    artefact.write_verdict(tmp_path, artefact.Verdict(True, 0.0, 3, "fresh"))

    with pytest.raises(CheckFailed, match="differs from the trained model"):
        artefact.write_verdict(tmp_path, artefact.Verdict(False, gap, 3, "fresh"))

    found = artefact.read_json(tmp_path / artefact.VERDICT)
    assert found["same"] is False
    assert found["max_difference"] == (0.5 if gap == 0.5 else None)


def test_a_run_that_came_back_otherwise_is_not_published(sections: Any, write_recipe: Any, tmp_path: Path):
    recipe = write_recipe(
        sections(
            "text-classification", publish={"to": "me/it", "base_model": "none", "license": "mit", "language": "en"}
        )
    )
    run = tmp_path / "run"
    run.mkdir()
    recipe.rename(run / artefact.RECIPE)
    artefact.write_status(run, "finished", "text-classification")
    artefact.write_verdict(run, artefact.Verdict(True, 0.0, 3, "fresh"))
    with pytest.raises(CheckFailed):
        artefact.write_verdict(run, artefact.Verdict(False, 1.0, 3, "fresh"))

    with pytest.raises(CheckFailed, match="did not come back as it was trained"):
        publish(run)
