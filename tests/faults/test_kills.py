"""Line R1: runs that are killed, and the same command again. `pytest -m faults --kills 200` for the long mode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def begin(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a script of this folder, in a process that has no thread and no trainer yet."""
    path = os.pathsep.join(str(each) for each in (HERE.parents[1], HERE.parent, HERE))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments], env=environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def figures(process: subprocess.Popen[str], output: Path, limit: float) -> dict:
    said = process.communicate(timeout=limit)[1]
    assert process.returncode == 0, said[-4000:]
    return json.loads(output.read_text())


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_runs_that_are_killed_at_random_instants_end_with_the_bits_of_unbroken_ones(tmp_path, contract, request):
    kills = request.config.getoption("--kills")
    both = {count: tmp_path / str(count) for count in (1, 2)}  # processes of a run; the two share the machine's cores
    started = {
        count: begin("kills.py", str(folder), "--kills", str(kills // 2), "--processes", str(count), "--output",
                     f"{folder}.json") for count, folder in both.items()
    }  # fmt: skip
    for count, process in started.items():
        found = figures(process, Path(f"{both[count]}.json"), 20 * kills + 200)
        bad = [each for each in found["trials"] if each["crashes"] or each["lost"] or each["different"]]
        assert not bad, bad
        assert found["most_steps_redone"] <= found["save_steps"]
        assert found["kills"] >= kills // 2
        assert found["inside_a_save"] >= 0.3 * found["kills"]
        assert all(found["kills_by_kind_and_processes"].values())
        counted = {name: found[name] for name in ("kills", "inside_a_save", "crashes", "lost", "different", "runs")}
        named = {f"{name}_{count}_proc": value for name, value in counted.items() if name in ("kills", "inside_a_save")}
        contract("R1", **counted, **named, steps_redone=float(found["most_steps_redone"]), save_steps=3.0)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "every"), [("lora", 1), ("gan", 5)])
def test_death_at_any_write_of_a_save_costs_no_checkpoint_and_no_bit(tmp_path, contract, kind, every):
    output = tmp_path / "figures.json"
    process = begin("writes.py", str(tmp_path), kind, "--every", str(every), "--output", str(output))
    found = figures(process, output, 850)

    assert found["deaths"] > 40
    assert not found["lost"]
    assert not found["crashes"]
    assert not found["different"]
    contract("R1", deaths_at_a_write=found["deaths"], resumed=found["deaths"] // every, different=0)
