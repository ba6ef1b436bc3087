"""Line R6: disks that are too small for a run, for its checkpoints, or for the file that is being written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_kills import begin, figures

SIZES = {  # MiB: a checkpoint has about 0.1 or 0.5
    "lora": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
    "whole": (0.3, 0.5, 0.8, 1.0, 1.2, 1.4, 1.6, 2.0),
}
LIMITS = (9, 16, 24, 60)  # KiB: the files of a checkpoint have up to 39, the report 87


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A tmpfs of its own; without the right to mount one, the test that limits the size of files stands for it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a tmpfs is not allowed here; the other test limits the size of files instead")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def assert_nothing_was_lost(trials: list[dict[str, Any]]) -> None:
    for each in trials:
        assert each["code"] in (0, 4), each
        assert len(each["said"]) == (1 if each["code"] else 0), each
        assert each["named"] or not each["code"], each  # the path, the bytes that it needs and those that are free
        assert not each["parts"], each
        assert not each["broken"], each
        assert not each["lost"], each
        assert each["ended"] == 0, each
        assert not each["different"], each


@pytest.mark.faults
@pytest.mark.parametrize("kind", SIZES)
def test_a_disk_that_is_too_small_costs_no_checkpoint_and_the_run_goes_on_with_more_room(
    tmp_path, disk, contract, kind
):
    output = tmp_path / "figures.json"
    sizes = [str(each) for each in SIZES[kind]]
    trials = figures(
        begin("disks.py", str(tmp_path), kind, "--output", str(output), "--mebibytes", *sizes), output, 290
    )["trials"]

    assert_nothing_was_lost(trials)
    full = [each for each in trials if each["code"] == 4]
    midway = [each for each in full if each["blind"] and each["saved"] > 0]
    assert len(full) > 4
    assert midway
    contract("R6", disks=len(trials), full=len(full), full_after_a_checkpoint=len(midway), different=0)


@pytest.mark.faults
def test_a_file_that_may_not_grow_costs_no_checkpoint_and_the_run_goes_on_without_the_limit(tmp_path, contract):
    output = tmp_path / "figures.json"
    sizes = [str(each) for each in LIMITS]
    trials = figures(
        begin("disks.py", str(tmp_path), "lora", "--output", str(output), "--kibibytes", *sizes), output, 290
    )["trials"]

    assert_nothing_was_lost(trials)
    assert all(each["code"] == 4 for each in trials), trials
    midway = [each for each in trials if each["saved"] > 0]
    assert len(midway) >= len(LIMITS)
    contract("R6", limits=len(trials), full=len(trials), full_after_a_checkpoint=len(midway), different=0)
