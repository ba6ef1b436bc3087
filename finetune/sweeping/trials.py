"""One trial: an ordinary run of a recipe in a process of its own, watched from outside."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from finetune import artefact
from finetune.errors import CheckFailed, EnvironmentFailed, Stopped, UserError
from finetune.launching import LAUNCHED

POLL = 0.5  # seconds between two looks at a trial
GRACE = 20  # seconds that a process has to end in when nothing of it is wanted any more
PATIENCE = 3600  # the same when it is to save first: a step, and a checkpoint
STOPPED = (Stopped.exit_code, 128 + signal.SIGINT, -signal.SIGTERM, -signal.SIGINT)
FAILED = CheckFailed.exit_code  # a run that diverged: a trial that failed, and not the sweep
LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # of a file system that has no locks: nothing is held there


@dataclass(frozen=True)
class Ended:
    """How a trial's process ended."""

    run: Path
    pruned: bool
    failed: str | None = None  # the line that it ended with


def run_trial(
    recipe: Path, run: Path, watch: Callable[[list[dict[str, float]]], bool], hours: float | None = None
) -> Ended:
    """Train a recipe in a process of its own and return how it ended.

    Args:
        recipe: its file; what the process says goes to a .log beside it.
        run: the recipe's output_dir; one that is there already, cut short, is gone on with.
        watch: is given the evaluations so far, whenever there are more, and says whether to end the trial.
        hours: `train.max_hours` of the whole command, counted from the start of this process.

    Raises:
        UserError, EnvironmentFailed: the process ended so; the next trial would too.
        Stopped: it was asked to stop, or the hours are over.
    """
    if _finished(run):
        return Ended(run, pruned=False)
    log = recipe.with_suffix(".log")
    with held(log) as stream:
        if _finished(run):  # by the process that held it
            return Ended(run, pruned=False)
        left = _time_left(recipe, hours)
        began, pruned, stopped = stream.tell(), False, False
        process: subprocess.Popen[bytes] | None = None
        try:
            with _signals_wait():
                process = subprocess.Popen(
                    [sys.executable, "-m", "finetune", "train", str(recipe), *left],
                    stdout=stream,
                    stderr=stream,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each), LAUNCHED: "1"},
                )
            pruned = _until_its_end(process, run, watch)
        except KeyboardInterrupt:
            stopped = True
        finally:  # whatever broke into the wait for it, a second signal too: nothing trains on
            if process is not None:
                process.kill()
                process.wait()
    if pruned:
        return Ended(run, pruned=True)
    return _ended(process.returncode if process else 0, recipe, run, log, began, stopped)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let signals wait until a process is started and known, or it would be left behind."""
    came: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    known = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT) if main}
    before = {name: each for name, each in known.items() if each != signal.SIG_IGN}  # which a child inherits
    for name in before:
        signal.signal(name, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for name, each in before.items():
            signal.signal(name, each)
        for number in came:
            signal.raise_signal(number)


@contextmanager
def held(log: Path) -> Iterator[BinaryIO]:
    """Open a trial's log, and hold it: no other process writes into the run then.

    A training has its log open for as long as it lives. One whose command was killed saves before it ends, and the
    same command, given again meanwhile, waits for it.

    Raises:
        UserError: another process has held it for PATIENCE seconds.
    """
    with log.open("ab") as stream:
        if not _lock(stream):
            print(f"{log.stem} is still being trained by another process, whose end is waited for.", flush=True)
            limit = time.monotonic() + PATIENCE
            while not _lock(stream):
                if time.monotonic() > limit:
                    raise UserError(f"{log}: another process still trains this run. End it, or wait for its end.")
                time.sleep(POLL)
        stream.seek(0, os.SEEK_END)
        yield stream


def _lock(stream: BinaryIO) -> bool:
    """Lock a file for this process and all that inherit it open; say whether it could be."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
    return True


def _finished(run: Path) -> bool:
    return run.exists() and artefact.status(run) == "finished"


def _ended(code: int, recipe: Path, run: Path, log: Path, began: int, stopped: bool) -> Ended:
    """Return how a process ended by its exit code, or raise; `stopped` when this one was asked to stop."""
    line = _last_line(log, began)
    if code in STOPPED:
        raise Stopped(f"{recipe}: {line}")
    if code == UserError.exit_code:
        raise UserError(f"{recipe}: {line}")
    if stopped and code != EnvironmentFailed.exit_code:  # it was killed, or ended by itself meanwhile
        raise Stopped(f"{recipe}: stopped by a signal; the same command goes on with it.")
    if code not in (0, FAILED):
        raise EnvironmentFailed(f"{recipe}: the training ended with code {code}: {line} See {log}.")
    return Ended(run, pruned=False, failed=line if code == FAILED else None)


def _until_its_end(
    process: subprocess.Popen[bytes], run: Path, watch: Callable[[list[dict[str, float]]], bool]
) -> bool:
    """Return whether a trial was pruned, once its process has ended; let it save where something breaks into this."""
    try:
        pruned = _watched(process, run, watch)
    except BaseException:
        _end(process, PATIENCE, f"{run.name} ends its step and saves; another signal ends it at once.")
        raise
    if pruned:
        _end(process, GRACE)
    return pruned


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


def _time_left(recipe: Path, hours: float | None) -> list[str]:
    """Return the option that gives a trial what is left of the hours that the whole command may take."""
    import psutil  # type: ignore[import-untyped]

    if hours is None:
        return []
    left = hours - (time.time() - psutil.Process().create_time()) / 3600
    if left <= 0:
        raise Stopped(f"{recipe}: stopped by train.max_hours {hours}; the same command goes on with it.")
    return [f"--train.max_hours={max(left, 1e-6):.6f}"]


def _end(process: subprocess.Popen[bytes], seconds: float, said: str = "") -> None:
    """Ask a process to end, say so, and wait for that at most so many seconds."""
    process.terminate()
    if said:
        with suppress(OSError):  # nobody is there to be told, and it saves all the same
            print(f"finetune: {said}", file=sys.stderr, flush=True)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _last_line(log: Path, began: int) -> str:
    lines = log.read_bytes()[began:].decode(errors="replace").splitlines()
    own = [line.removeprefix("finetune: ") for line in lines if line.startswith("finetune: ")]
    return (own or lines or ["it said nothing."])[-1][:400]
