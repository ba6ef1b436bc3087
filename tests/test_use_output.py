"""What a user reads on the screen, beyond what single rooms promise."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from finetune import showing
from finetune.cli import main
from finetune.errors import FinetuneError


def test_no_progress_bar_is_written_into_a_log_file(sections: Any, write_recipe: Any, tmp_path: Any):
    made = sections("text-classification", data={"cache_dir": str(tmp_path / "cache")})
    clean = {name: value for name, value in os.environ.items() if "PROGRESS_BARS" not in name}
    command = [sys.executable, "-m", "finetune", "preview", str(write_recipe(made)), "--rows", "1"]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=120, check=True)

    assert "%|" not in done.stderr
    assert "train.jsonl:1" in done.stdout


def test_using_a_run_again_does_not_call_its_trained_head_random(run: Any, capsys: pytest.CaptureFixture[str]):
    folder = run("text-classification", "lora")
    assert "New, with random weights: classifier." in capsys.readouterr().out

    assert main(["evaluate", str(folder)]) == 0
    assert "random" not in "".join(capsys.readouterr())


def test_one_row_has_a_score_and_no_interval():
    from finetune.evaluation.bootstrap import bootstrap

    def measure(weights: Any) -> dict[str, Any]:
        return {"mean": weights[0] * 0 + 1.0}

    assert bootstrap(measure, 1, 100)["mean"].low is None
    assert bootstrap(measure, 2, 100)["mean"].low == 1.0


@pytest.mark.parametrize("output_dir", ["x" * 300, "/proc/nowhere/run"])
def test_a_run_folder_that_cannot_be_made_is_one_line(run: Any, output_dir: str):
    with pytest.raises(FinetuneError, match=r"^train.output_dir: .*(File name too long|cannot be made|nothing can be)"):
        run("text-classification", train={"output_dir": output_dir})


def test_the_table_shows_no_gap_of_a_score_that_it_leaves_out():
    score = {"value": 0.5, "low": None, "high": None, "n": 4}
    rivals = {"majority": {"accuracy": score, "accuracy_gap": score, "micro_f1": score, "micro_f1_gap": score}}

    told = "\n".join(showing._table("test", {"accuracy": score, "micro_f1": score}, rivals))

    assert "accuracy_gap" in told
    assert "micro_f1" not in told
