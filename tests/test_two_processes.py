"""Two gloo processes take the steps of one, for every task of the table, whole and with LoRA: a launch for many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from test_equivalence import OFTEN, every_cell_often_or_slow
from tiny import CELLS

from finetune import artefact
from finetune.task import Task
from finetune.tasks import task_class

ROOT = Path(__file__).parent.parent


def launch(profile: str, *arguments: str, limit: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a script of this repository under `accelerate launch` with one of its profiles."""
    config = str(ROOT / "accelerate_configs" / f"{profile}.yaml")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config,
               "--main_process_port", "0", *arguments]  # fmt: skip
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    return subprocess.run(
        command, capture_output=True, text=True, timeout=limit, env=environment, cwd=ROOT, check=False
    )


def train_all(profile: str, folder: Path, home: Path, cells: list[tuple[str, str]]) -> Path:
    """Train cells of the matrix in the two processes of one launch; return the folder of the runs."""
    paths = []
    for kind, adapter in cells:
        made = tiny.sections(home, folder / f"{kind}-{adapter}", kind, adapter)
        made["train"] |= {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 4}
        path = folder / f"{kind}-{adapter}.yaml"
        path.write_text(yaml.safe_dump(made))
        paths.append(str(path))
    done = launch(profile, str(ROOT / "tests" / "two_processes.py"), *paths)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Callable[[str, str], Path]:
    """Return a function that gives a cell's run, made with those of all cells that run as often."""
    folders: dict[bool, Path] = {}

    def go(kind: str, adapter: str) -> Path:
        often = (kind, adapter) in OFTEN
        if often not in folders:
            cells = [cell for cell in CELLS if (cell in OFTEN) == often]
            folders[often] = train_all("cpu", tmp_path_factory.mktemp("two"), home, cells)
        return folders[often] / f"{kind}-{adapter}"

    return go


@every_cell_often_or_slow
def test_two_processes_take_the_steps_of_one(launched, plain, weights, kind, adapter) -> None:
    alone, together = plain(kind, adapter), launched(kind, adapter)

    assert json.loads((together / "environment.json").read_text())["world_size"] == 2
    expected, given = weights(alone), weights(together)
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, rtol=1e-4, atol=1e-5)


@every_cell_often_or_slow
def test_two_processes_count_every_row_once(launched, plain, kind, adapter) -> None:
    folders = plain(kind, adapter), launched(kind, adapter)
    alone, together = (json.loads((each / "scores.json").read_text()) for each in folders)
    for split in ("validation", "test"):
        for name, score in alone[split].items():
            assert together[split][name]["n"] == score["n"], name
            assert together[split][name]["value"] == pytest.approx(score["value"], rel=1e-4, abs=1e-5), name


@pytest.mark.slow
def test_zero2_on_two_processes_takes_the_steps_of_one_for_every_task_of_one_model(
    tmp_path, home, plain, weights
) -> None:
    cells = [cell for cell in CELLS if task_class(cell[0]).trainer == Task.trainer]  # DeepSpeed holds one model: no GAN
    folder = train_all("zero2", tmp_path, home, cells)

    for kind, adapter in cells:
        together = folder / f"{kind}-{adapter}"
        assert json.loads((together / "environment.json").read_text())["world_size"] == 2
        expected = weights(plain(kind, adapter))
        given = weights(together)
        for name, tensor in expected.items():
            torch.testing.assert_close(given[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_first_process_may_look_at_a_finished_training_for_longer_than_a_collective_lasts(tmp_path, home) -> None:
    made = tiny.sections(home, tmp_path / "run", "text-classification", "whole")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(made))

    done = launch("cpu", str(ROOT / "tests" / "launched_patience.py"), str(tmp_path / "recipe.yaml"), "15", "25")

    assert done.returncode == 0, done.stderr[-4000:]
    assert artefact.status(tmp_path / "run") == "finished"
