"""The process of one trial: how it is stopped, how long it may take, and what its end says."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from finetune.endings import Terminated, terminated
from finetune.errors import EnvironmentFailed, Stopped
from finetune.sweeping import trials

SAVES = """
trap 'sleep 3; echo saved >> "$LOG"; exit 143' TERM
echo up >> "$LOG"
while :; do sleep 0.05; done
"""
HANGS = """
trap '' TERM INT
echo up >> "$LOG"
while :; do sleep 0.05; done
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that trains a recipe by a shell script in the place of python; it notes things in `noted`."""
    monkeypatch.setenv("LOG", str(tmp_path / "noted"))

    def run(script: str, **train: Any) -> trials.Ended:
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(trials.sys, "executable", str(program))
        recipe = tmp_path / "000.yaml"
        recipe.write_text(yaml.safe_dump({"train": {"output_dir": str(tmp_path / "000"), **train}}))
        return trials.run_trial(recipe, tmp_path / "000", lambda found: False)

    return run


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    return tmp_path / "noted"


def signals_after_it_is_up(noted: Path, waits: list[float]) -> threading.Thread:
    """Send SIGTERM to this process, so many seconds after the child is up."""

    def send() -> None:
        while not noted.exists():
            time.sleep(0.05)
        for seconds in waits:
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("end", ["exit 143", "exit 130", "kill -TERM $$; sleep 5"])
def test_a_training_that_was_asked_to_stop_stops_the_command(child: Any, end: str) -> None:
    with pytest.raises(Stopped, match=r"000\.yaml: stopped by SIGTERM after step 3 of 9: .* goes on from there\.$"):
        child(f'echo "finetune: stopped by SIGTERM after step 3 of 9: x holds it, it goes on from there." >&2; {end}')


def test_a_training_that_ends_otherwise_is_the_machines_fault(child: Any) -> None:
    with pytest.raises(EnvironmentFailed, match="ended with code -9"):
        child("kill -KILL $$; sleep 5")


def test_a_limit_of_hours_is_that_of_the_whole_command(child: Any, noted: Path) -> None:
    child('echo "$@" >> "$LOG"; exit 0', max_hours=1000.0)

    option = noted.read_text().split()[-1]
    name, _, hours = option.partition("=")
    gone = (time.time() - psutil.Process().create_time()) / 3600
    assert name == "--train.max_hours"
    assert float(hours) == pytest.approx(1000 - gone, abs=0.01)

    with pytest.raises(Stopped, match=r"stopped by train\.max_hours 1e-06; the same command goes on with it"):
        child('echo "again" >> "$LOG"', max_hours=1e-6)
    assert "again" not in noted.read_text()


def test_a_stopped_command_waits_for_the_step_and_the_checkpoint(
    child: Any, noted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "GRACE", 1)
    sender = signals_after_it_is_up(noted, [0.2])

    with terminated(), pytest.raises(Terminated):
        child(SAVES)

    sender.join()
    assert noted.read_text().split() == ["up", "saved"]


def test_a_second_signal_ends_a_training_that_does_not_end(child: Any, noted: Path) -> None:
    sender, began = signals_after_it_is_up(noted, [0.2, 1.0]), time.monotonic()

    with terminated(), pytest.raises(Terminated):
        child(HANGS)

    sender.join()
    assert time.monotonic() - began < 15
    assert not [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
