"""One trial: an ordinary run of a recipe in a process of its own, watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from finetune import artefact
from finetune.errors import CheckFailed, EnvironmentFailed, Stopped, UserError

POLL = 0.5  # seconds between two looks at a trial
GRACE = 20  # seconds that a process has to end in when nothing of it is wanted any more
PATIENCE = 3600  # the same when it is to save first: a step, and a checkpoint
STOPPED = (Stopped.exit_code, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT)
FAILED = CheckFailed.exit_code  # a run that diverged: a trial that failed, and not the sweep


@dataclass(frozen=True)
class Ended:
    """How a trial's process ended."""

    run: Path
    pruned: bool
    failed: str | None = None  # the line that it ended with


def run_trial(recipe: Path, run: Path, watch: Callable[[list[dict[str, float]]], bool]) -> Ended:
    """Train a recipe in a process of its own and return how it ended.

    Args:
        recipe: its file; what the process says goes to a .log beside it.
        run: the recipe's output_dir; one that is there already, cut short, is gone on with.
        watch: is given the evaluations so far, whenever there are more, and says whether to end the trial.

    Raises:
        UserError, EnvironmentFailed: the process ended so; the next trial would too.
        Stopped: it was asked to stop, or `train.max_hours`, counted from the start of this process, are over.
    """
    log = recipe.with_suffix(".log")
    if run.exists() and artefact.status(run) == "finished":
        return Ended(run, pruned=False)
    left = _time_left(recipe)
    with log.open("ab") as stream:
        began = stream.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune", "train", str(recipe), *left],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
        )
        try:
            pruned = _watched(process, run, watch)
        except BaseException:
            print(f"{run.name} ends its step and saves; another signal ends it at once.", flush=True)
            _end(process, PATIENCE)
            raise
        if pruned:
            _end(process, GRACE)
    if pruned:
        return Ended(run, pruned=True)
    code = process.returncode
    if code == 0:
        return Ended(run, pruned=False)
    line = _last_line(log, began)
    if code == FAILED:
        return Ended(run, pruned=False, failed=line)
    if code in STOPPED:
        raise Stopped(f"{recipe}: {line}")
    if code == UserError.exit_code:
        raise UserError(f"{recipe}: {line}")
    raise EnvironmentFailed(f"{recipe}: the training ended with code {code}: {line} See {log}.")


def _watched(process: subprocess.Popen[bytes], run: Path, watch: Callable[[list[dict[str, float]]], bool]) -> bool:
    seen = 0
    while True:
        try:
            process.wait(POLL)
            return False
        except subprocess.TimeoutExpired:
            found = evaluations(run)
            if len(found) > seen:
                seen = len(found)
                if watch(found):
                    return True


def evaluations(run: Path) -> list[dict[str, float]]:
    """Return what a run that is training has logged of its evaluations, by the newest of its checkpoints."""
    states = list((run / artefact.CHECKPOINTS).glob("checkpoint-*/trainer_state.json"))
    try:
        newest = max(states, key=lambda path: int(path.parent.name.rpartition("-")[2]), default=None)
        logged = [] if newest is None else json.loads(newest.read_text(encoding="utf-8"))["log_history"]
    except FileNotFoundError:  # it was rotated away between two looks
        return []
    return [each for each in logged if any(name.startswith("eval_") for name in each)]


def _time_left(recipe: Path) -> list[str]:
    """Return the option that gives a trial what is left of the hours that the whole command may take."""
    import psutil  # type: ignore[import-untyped]

    hours = yaml.safe_load(recipe.read_text(encoding="utf-8"))["train"].get("max_hours")
    if hours is None:
        return []
    left = hours - (time.time() - psutil.Process().create_time()) / 3600
    if left <= 0:
        raise Stopped(f"{recipe}: stopped by train.max_hours {hours}; the same command goes on with it.")
    return [f"--train.max_hours={max(left, 1e-6):.6f}"]


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask a process to end; by force when that takes longer, or when this one is asked to end meanwhile."""
    try:
        process.send_signal(signal.SIGTERM)
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()


def _last_line(log: Path, began: int) -> str:
    lines = log.read_bytes()[began:].decode(errors="replace").splitlines()
    own = [line.removeprefix("finetune: ") for line in lines if line.startswith("finetune: ")]
    return (own or lines or ["it said nothing."])[-1][:400]
