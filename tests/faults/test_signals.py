"""Line R5: signals to any process of a run, at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_kills import begin, figures

from finetune.training import checkpoints


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_to_any_process_saves_and_ends_with_143_and_the_run_goes_on(tmp_path, contract, processes):
    output = tmp_path / "figures.json"
    process = begin("signals.py", str(tmp_path), "--processes", str(processes), "--output", str(output))
    found = figures(process, output, 290)

    assert not found["bad"]
    assert found["stops"] == 20
    assert found["readers"] >= 10 * processes  # of which none was left; an epoch may just have ended
    contract("R5", stops=found["stops"], bad=0, readers=found["readers"], orphans=0, slowest_s=found["slowest"])


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.faults
@pytest.mark.parametrize("to", ["launcher", "worker"])
def test_a_signal_to_a_launcher_or_to_one_of_its_workers_ends_all_of_them(
    sections, write_recipe, tmp_path, contract, to
):
    made = sections("text-classification", train={"num_train_epochs": 100000, "use_cpu": True, "save_steps": 10000})
    command = [sys.executable, "-m", "finetune", "train", str(write_recipe(made)), "--profile", "cpu"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in launcher.stdout:
        said.append(line)
        if line.startswith("step "):  # it trains
            break
    workers = children(launcher.pid)
    assert len(workers) == 2, said
    started = time.monotonic()
    os.kill(launcher.pid if to == "launcher" else workers[1], signal.SIGTERM)
    rest = launcher.communicate(timeout=60)[0]
    seconds = time.monotonic() - started

    assert launcher.returncode == 143, rest
    assert "finetune: stopped by SIGTERM after step" in rest
    assert "Traceback" not in rest
    assert not [each for each in workers if Path(f"/proc/{each}").exists()]
    assert checkpoints.last_good(tmp_path / "run" / "checkpoints") is not None
    assert seconds < 10
    contract("R5", launches=1, launch_slowest_s=seconds)
