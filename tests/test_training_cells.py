"""Line R3: resumed equals unbroken to the bit, however rows come, wherever the run was cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from resumed_cells import CELLS, DATA, STOPS, cell
from test_training_processes import COMMANDS, ROOT

# Every pair of choices is in one of these; the other cells take as long again.
PAIRS = {(data, *rest) for data in DATA for rest in ([(1, "dropout"), (4, "lora")], [(4, "dropout"), (1, "lora")])[
    data in ("stream", "masked")]}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "accumulation", "net"),
    [each if each in PAIRS else pytest.param(*each, marks=pytest.mark.slow) for each in CELLS],
)
def test_a_resumed_run_is_the_unbroken_one_and_sees_every_row_once(tmp_path, contract, data, accumulation, net):
    found = cell(tmp_path / "cell", data, accumulation, net)

    assert found["different"] == []
    assert found["ledger"] == []
    contract("R3", cells=len(STOPS), different=0, rows_seen_twice_or_never=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_so_it_is_with_two_processes(tmp_path, contract):
    command = [sys.executable, "-m", "accelerate.commands.launch", *COMMANDS["ddp"], "--main_process_port", "0"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "resumed_cells.py"), str(tmp_path)],
        capture_output=True, text=True, timeout=850, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    for rank in (0, 1):
        found = json.loads((tmp_path / f"cells-{rank}.json").read_text())
        assert found["world"] == 2
        assert len(found["cells"]) == len(CELLS)
        assert [each for each in found["cells"] if each["different"] or each["ledger"]] == []
    contract("R3", cells=len(CELLS) * len(STOPS), different=0, rows_seen_twice_or_never=0)
