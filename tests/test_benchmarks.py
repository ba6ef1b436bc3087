"""What a benchmark could not measure is refused before it measures anything."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

CHECKPOINTS = Path(__file__).parents[1] / "benchmarks" / "checkpoints.py"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--steps", "50"], "--save_steps 100: give 2 or more, and no more than --steps 50"),
        (["--save_steps", "1"], "--save_steps 1: give 2 or more, and no more than --steps 200"),
        (["--rounds", "0"], "--rounds 0: give 1 or more"),
    ],
)
def test_rounds_without_a_save_or_a_step_to_time_are_refused_before_they_are_trained(monkeypatch, capsys, words, line):
    def prepared(*given):
        raise AssertionError("rows were read before the options were looked at")

    monkeypatch.setattr("finetune.preparation.prepare", prepared)
    monkeypatch.setattr(sys, "argv", [str(CHECKPOINTS), *words])

    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CHECKPOINTS), run_name="__main__")
    assert ended.value.code == 2
    assert line in capsys.readouterr().err
