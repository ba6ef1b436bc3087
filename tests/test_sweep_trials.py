"""The process of one trial: how it is stopped, how long it may take, and what its end says."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune.endings import terminated
from finetune.errors import EnvironmentFailed, Stopped, UserError
from finetune.sweeping import trials

SAVES = """
trap 'sleep 3; echo saved >> "$LOG"; echo "finetune: stopped by SIGTERM after step 3; it goes on."; exit 143' TERM
echo up >> "$LOG"
while :; do sleep 0.05; done
"""
HANGS = """
trap 'echo told >> "$LOG"' TERM INT
echo up >> "$LOG"
while :; do sleep 0.05; done
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that trains a recipe by a shell script in the place of python; it notes things in `noted`."""
    monkeypatch.setenv("LOG", str(tmp_path / "noted"))

    def run(script: str, hours: float | None = None) -> trials.Ended:
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(trials.sys, "executable", str(program))
        return trials.run_trial(tmp_path / "000.yaml", tmp_path / "000", lambda found: False, hours)

    yield run
    for left in running():
        left.kill()


def running() -> list[psutil.Process]:
    """Return the processes that this one has started and that have not ended."""
    return [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    return tmp_path / "noted"


def signals(noted: Path, *awaited: str, number: int = signal.SIGTERM) -> threading.Thread:
    """Send this process a signal whenever the child has noted the next of some words."""

    def send() -> None:
        for word in awaited:
            while not (noted.exists() and word in noted.read_text().split()):
                time.sleep(0.05)
            os.kill(os.getpid(), number)

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
    child('echo "$@" >> "$LOG"; exit 0', hours=1000.0)

    option = noted.read_text().split()[-1]
    name, _, hours = option.partition("=")
    gone = (time.time() - psutil.Process().create_time()) / 3600
    assert name == "--train.max_hours"
    assert float(hours) == pytest.approx(1000 - gone, abs=0.01)

    with pytest.raises(Stopped, match=r"stopped by train\.max_hours 1e-06; the same command goes on with it"):
        child('echo "again" >> "$LOG"', hours=1e-6)
    assert "again" not in noted.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_waits_for_the_step_and_the_checkpoint(
    child: Any, noted: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(trials, "GRACE", 1)
    sender = signals(noted, "up", number=number)

    with terminated(), pytest.raises(Stopped, match=r"000\.yaml: stopped by SIGTERM after step 3; it goes on\.$"):
        child(SAVES)

    sender.join()
    assert noted.read_text().split() == ["up", "saved"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_training_that_does_not_end(child: Any, noted: Path, number: int) -> None:
    sender, began = signals(noted, "up", "told", number=number), time.monotonic()

    with terminated(), pytest.raises(Stopped, match="stopped by a signal; the same command goes on with it"):
        child(HANGS)

    sender.join()
    assert time.monotonic() - began < 60
    assert not running()


def test_a_second_signal_while_the_first_is_answered_leaves_no_training_behind(
    child: Any, noted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "PATIENCE", 60)

    class Hit(io.StringIO):
        def write(self, text: str) -> int:
            signal.raise_signal(signal.SIGTERM)
            return len(text)

    monkeypatch.setattr(trials.sys, "stderr", Hit())
    sender, began = signals(noted, "up"), time.monotonic()

    with terminated(), pytest.raises(Stopped):
        child(HANGS)

    sender.join()
    assert time.monotonic() - began < 30
    assert not running()


def test_a_training_saves_and_ends_though_nobody_can_be_told(
    child: Any, noted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(trials.sys, "stderr", Closed())
    sender = signals(noted, "up")

    with terminated(), pytest.raises(Stopped):
        child(SAVES)

    sender.join()
    assert noted.read_text().split() == ["up", "saved"]
    assert not running()


def test_a_run_is_not_trained_by_two_processes(child: Any, noted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed command leaves behind has its log open until it ends."""
    child('(sleep 3; echo first >> "$LOG") & exit 0')
    child('echo second >> "$LOG"')
    assert noted.read_text().split() == ["first", "second"]

    monkeypatch.setattr(trials, "PATIENCE", 1)
    child("sleep 6 & exit 0")
    with pytest.raises(UserError, match=r"000\.log: another process still trains this run"):
        child('echo third >> "$LOG"')
    assert noted.read_text().split() == ["first", "second"]


def test_where_a_disk_has_no_locks_a_trial_trains_without(
    child: Any, noted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(trials.fcntl, "flock", without)
    child('echo trained >> "$LOG"')
    assert noted.read_text().split() == ["trained"]


def test_the_kernel_ends_a_training_with_the_command_that_started_it(child: Any, noted: Path) -> None:
    child('echo "$FINETUNE_LAUNCHED" >> "$LOG"')
    assert noted.read_text().split() == ["1"]
