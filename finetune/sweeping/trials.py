"""One trial: an ordinary run of a recipe in a process of its own, watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune import artefact
from finetune.errors import CheckFailed, EnvironmentFailed, UserError

POLL = 0.5  # seconds between two looks at a trial
GRACE = 20  # seconds that a process has to end in when it is asked to
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
    """
    log = recipe.with_suffix(".log")
    if run.exists() and artefact.status(run) == "finished":
        return Ended(run, pruned=False)
    with log.open("ab") as stream:
        began = stream.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune", "train", str(recipe)],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
        )
        try:
            pruned = _watched(process, run, watch)
        finally:
            _stop(process)
    if pruned:
        return Ended(run, pruned=True)
    code = process.returncode
    if code == 0:
        return Ended(run, pruned=False)
    line = _last_line(log, began)
    if code == FAILED:
        return Ended(run, pruned=False, failed=line)
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


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that has not ended: by asking, then by force."""
    for name in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(name)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def _last_line(log: Path, began: int) -> str:
    lines = log.read_bytes()[began:].decode(errors="replace").splitlines()
    own = [line.removeprefix("finetune: ") for line in lines if line.startswith("finetune: ")]
    return (own or lines or ["it said nothing."])[-1][:400]
