"""Line R5: the first signal is a wish that a run stops at a good place; a second one, later, ends it at once."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from families import family, left
from test_training_processes import ROOT
from torch.testing import assert_close

from finetune.training import checkpoints, impatience
from finetune.training.impatience import ONE_WISH, leave_signals_to_the_parent

FIRST = "finetune: SIGTERM: the run stops and is saved at the end of a step; a second one ends it at once."


def changes(folder: Path) -> dict[str, dict]:
    return {"task": {"kind": "held_task:HeldClassification"}, "train": {
        "output_dir": str(folder), "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2,
        "optim": "adamw_torch", "use_cpu": True, "dataloader_num_workers": 1,
    }}  # fmt: skip


@pytest.fixture
def begin(sections, write_recipe, tmp_path, monkeypatch):
    """Return a function that starts a run in a session of its own, and comes back in the midst of a step of it."""
    monkeypatch.setenv("HELD_BY", str(tmp_path / "hold"))
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    path, started = write_recipe(sections("text-classification", **changes(tmp_path / "run"))), []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}

    def go(*more: str, hold: bool = True, verb: str = "train") -> subprocess.Popen[str]:
        if hold:
            (tmp_path / "hold").touch()
            (tmp_path / "held").unlink(missing_ok=True)
        command = [sys.executable, "-m", "finetune", verb, str(path), *more]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, start_new_session=True)  # fmt: skip
        started.append(process)
        while hold and not (tmp_path / "held").exists():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
        return process

    yield go
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ended(process: subprocess.Popen[str], limit: float, started: list[psutil.Process]) -> tuple[str, float]:
    """Return what a run has said and the seconds to its end; all that it has started must have ended too."""
    asked = time.monotonic()
    assert process.wait(limit) == 143
    seconds = time.monotonic() - asked
    said = process.stdout.read()
    assert "Traceback" not in said, said[-6000:]
    assert started  # a reader of rows at least
    assert not left(started)
    return said, seconds


def waits(process: subprocess.Popen[str], seconds: float) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(seconds)


def test_a_step_is_waited_for_and_saved_unless_a_second_signal_comes_later(begin, run, weights, tmp_path, contract):
    known = tmp_path / "run" / "checkpoints"
    patient = begin()
    started = family(patient.pid)
    for number in (signal.SIGTERM, signal.SIGINT):  # one wish, of a launcher and of a terminal
        os.killpg(patient.pid, number)  # its reader of rows too
        time.sleep(0.2)
    waits(patient, ONE_WISH + 0.3)
    (tmp_path / "hold").unlink()
    said, _ = ended(patient, 20, started)
    assert said.count(FIRST) == 1
    assert "finetune: stopped by SIGTERM after step 3 of 8" in said
    assert checkpoints.steps(known)[-1] == 3

    hasty = begin()
    started = family(hasty.pid)
    os.kill(hasty.pid, signal.SIGTERM)
    waits(hasty, ONE_WISH + 0.3)
    os.kill(hasty.pid, signal.SIGINT)
    said, seconds = ended(hasty, 2, started)
    assert (
        f"{FIRST}\nfinetune: ended by a second SIGINT: the same command goes on from {known / 'checkpoint-3'}." in said
    )
    assert checkpoints.steps(known)[-1] == 3

    (tmp_path / "hold").unlink()
    again = begin(hold=False)
    said = again.communicate(timeout=120)[0]
    assert again.returncode == 0, said
    assert f"resuming from {known / 'checkpoint-3'}" in said
    unbroken = weights(run("text-classification", **changes(tmp_path / "unbroken")))
    assert_close(weights(tmp_path / "run"), unbroken, rtol=0, atol=0)
    contract("R5", second_signals=1, second_slowest_s=seconds, different=0)


def test_what_has_come_by_the_end_of_one_wish_is_passed_over_however_late_it_is_read():
    reader, writer = os.pipe()
    os.write(writer, bytes([signal.SIGTERM, signal.SIGINT]))
    assert not impatience._is_over_within(reader, 0.0)
    assert not select.select([reader], [], [], 0)[0]
    os.write(writer, impatience.OVER)
    assert impatience._is_over_within(reader, 0.0)
    os.close(reader)
    os.close(writer)


def test_a_signal_counts_where_nobody_reads_what_is_said(monkeypatch):
    def broken(*given):
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", broken)
    impatience._say("SIGTERM")


def test_a_second_signal_to_an_audit_says_that_nothing_is_kept_and_nothing_is(begin, tmp_path):
    asked = begin(verb="audit")
    started = family(asked.pid)
    os.kill(asked.pid, signal.SIGTERM)
    waits(asked, ONE_WISH + 0.3)
    os.kill(asked.pid, signal.SIGTERM)
    said, _ = ended(asked, 5, started)

    assert [each for each in said.splitlines() if each.startswith("finetune: ")] == [
        "finetune: SIGTERM: the run stops at the end of a step; a second one ends it at once.",
        "finetune: ended by a second SIGTERM: nothing of it is kept, and the same command starts it anew.",
    ]
    assert not list(tmp_path.glob("*run-audit*"))


def test_a_reader_of_rows_ends_by_its_parent_alone():
    reader = multiprocessing.get_context("fork").Process(target=read_for_ever, daemon=True)
    reader.start()
    time.sleep(0.3)
    subprocess.run(["kill", "-TERM", str(reader.pid)], check=True)
    reader.join(0.5)
    assert reader.exitcode is None
    reader.terminate()
    reader.join(5)
    assert reader.exitcode == 143


def read_for_ever() -> None:
    leave_signals_to_the_parent(0)
    while True:
        time.sleep(1)


@pytest.mark.faults
@pytest.mark.parametrize("to", ["group", "launcher"])
def test_a_second_signal_ends_processes_that_wait_for_another_ones_step(begin, tmp_path, contract, to):
    send = {"group": os.killpg, "launcher": os.kill}[to]  # as a terminal does, or a batch system
    launched = begin("--profile", "cpu")  # rank 1 waits for rank 0 in a collective, where no handler of Python's runs
    started = family(launched.pid)
    send(launched.pid, signal.SIGTERM)
    waits(launched, ONE_WISH + 0.5)
    send(launched.pid, signal.SIGTERM)
    said, seconds = ended(launched, 5, started)

    known = tmp_path / "run" / "checkpoints"
    second = f"finetune: ended by a second SIGTERM: the same command goes on from {known / 'checkpoint-2'}."
    assert [each for each in said.splitlines() if each.startswith("finetune: ")] == [FIRST, second]
    assert checkpoints.steps(known)[-1] == 2
    contract("R5", second_signals=1, second_slowest_s=seconds)
