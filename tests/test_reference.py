from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finetune import artefact

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
