"""`finetune train` in forks of one process that has imported everything: a trial costs its steps, and no start.

Only for a process of its own that stays single-threaded and has made no trainer; `kills.py` and `signals.py` are such.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMES = ("tokens_per_second", "images_per_second", "eval_runtime", "eval_rows_per_second", "train_runtime")


def load() -> None:
    """Import what a run imports, so that forks have it."""
    import datasets  # noqa: F401
    import matplotlib.figure
    import matplotlib.projections  # noqa: F401
    import peft  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import transformers  # noqa: F401
    from transformers import BertForSequenceClassification, GPT2LMHeadModel  # noqa: F401

    import finetune.cli
    import finetune.evaluation.report
    import finetune.publishing.card
    import finetune.run
    import finetune.tasks
    import finetune.training.adversarial  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # every fork collects before it trains: not through all that again


@dataclass
class Running:
    """The processes of one `finetune train`, and what they have told: (rank, word, number, …)."""

    pids: list[int]
    pipes: dict[int, int]  # file descriptor → rank
    started: float = field(default_factory=time.monotonic)
    told: list[tuple[Any, ...]] = field(default_factory=list)
    codes: dict[int, int] = field(default_factory=dict)
    _rest: dict[int, bytes] = field(default_factory=dict)

    def listen(self, seconds: float, until: Callable[[tuple[Any, ...]], bool] | None = None) -> bool:
        """Hear the processes for a while; True as soon as one says what is waited for, False at the end."""
        limit = time.monotonic() + seconds
        while self.pipes:
            ready, _, _ = select.select(list(self.pipes), [], [], max(0.0, limit - time.monotonic()))
            if not ready:
                return False
            for pipe in ready:
                for said in self._read(pipe):
                    self.told.append(said)
                    if until is not None and until(said):
                        return True
        return False

    def _read(self, pipe: int) -> Iterator[tuple[Any, ...]]:
        rank, got = self.pipes[pipe], os.read(pipe, 65536)
        if not got:
            os.close(pipe)
            del self.pipes[pipe]
            return
        *lines, self._rest[pipe] = (self._rest.get(pipe, b"") + got).split(b"\n")
        for line in lines:
            yield (rank, *json.loads(line))

    def signal(self, number: int, rank: int | None = None) -> None:
        """Send a signal to one process, or to all."""
        for pid in self.pids if rank is None else [self.pids[rank]]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait(self, seconds: float = 120) -> list[int]:
        """Return the exit codes; what is not gone after a while is killed and counts as -9."""
        limit = time.monotonic() + seconds
        while len(self.codes) < len(self.pids):
            self.listen(0.002)
            self.ended()
            if time.monotonic() > limit:
                self.signal(signal.SIGKILL)
            elif not self.pipes:
                time.sleep(0.002)
        self.listen(0.05)
        for pipe in self.pipes:
            os.close(pipe)
        self.pipes = {}
        return [self.codes[pid] for pid in self.pids]

    def ended(self) -> dict[int, int]:
        """Return the exit codes of the processes that have ended, by their id."""
        for pid in set(self.pids) - set(self.codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.codes[pid] = os.waitstatus_to_exitcode(status)
        return self.codes

    def last(self, word: str) -> int:
        """Return the last number told with a word, or -1."""
        return max((each[2] for each in self.told if each[1] == word), default=-1)

    @property
    def saving(self) -> bool:
        """Whether the last that process 0 told of checkpoints is that one begins."""
        words = [each[1] for each in self.told if each[0] == 0 and each[1] in ("saving", "saved")]
        return words[-1:] == ["saving"]


def start(argv: list[str], processes: int, log: Path, prepare: Callable[[], None] | None = None) -> Running:
    """Start `finetune ARGV` in forks; `prepare` is called in each of them before."""
    port = _free_port()
    pids, pipes = [], {}
    for rank in range(processes):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reader)
            _run(argv, rank, processes, port, writer, log, prepare)
        os.close(writer)
        pids.append(pid)
        pipes[reader] = rank
    return Running(pids, pipes)


def _run(
    argv: list[str], rank: int, processes: int, port: int, writer: int, log: Path, prepare: Callable[[], None] | None
) -> None:
    """In the fork: run the command as a launcher would have it run, and never come back."""
    code = 70
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if processes > 1:
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "ACCELERATE_USE_CPU": "true",
                "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
            argv = [*argv, "--train.use_cpu=true"]
        _watch(writer)
        if prepare is not None:
            prepare()
        from tqdm import tqdm

        from finetune.cli import main

        tqdm.set_lock(threading.RLock())  # its own lies in memory that forks share: one that is killed never opens it

        code = main(argv)
    except BaseException:  # noqa: BLE001 - nothing may come back from here
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _watch(writer: int) -> None:
    """Let the trainer tell, through a pipe, of steps, evaluations and checkpoints."""
    from finetune.training import answering
    from finetune.training.checkpointed import Checkpointed
    from finetune.training.stopping import Stoppable

    def tell(*words: Any) -> None:
        os.write(writer, json.dumps(words).encode() + b"\n")

    save, end, answers = Checkpointed._save_checkpoint, Stoppable._maybe_log_save_evaluate, answering.all_answers

    def watched_save(self: Any, *args: Any) -> None:
        tell("saving", self.state.global_step)
        save(self, *args)
        tell("saved", self.state.global_step)

    def watched_end(self: Any, *args: Any, **kwargs: Any) -> None:
        if self._ended != self.state.global_step:
            rows = [each for held in self._carried if not held.stand_in for each in held.row_ids]
            tell("step", self.state.global_step, rows)
        end(self, *args, **kwargs)

    def watched_answers(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer.wishes.listening:
            tell("evaluating", trainer.state.global_step)
        return answers(trainer, *args, **kwargs)

    Checkpointed._save_checkpoint, Stoppable._maybe_log_save_evaluate = watched_save, watched_end
    answering.all_answers = watched_answers


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def fingerprint(run: Path) -> dict[str, str]:
    """Return what two runs have in common if they are the same to the bit: name → hash or text.

    Weights of the run; weights, optimiser, schedule and random generators of every checkpoint that is left; everything
    that was logged, but for times; the scores.
    """
    found = {each.name: _sha256(each) for each in sorted(run.glob("*.safetensors"))}
    for manifest in sorted(run.glob("checkpoints/checkpoint-*/manifest.json")):
        files = json.loads(manifest.read_text())["files"]
        found |= {
            f"{manifest.parent.name}/{name}": listed["sha256"]
            for name, listed in files.items()
            if name != "trainer_state.json"
        }
    history = json.loads((run / "history.json").read_text())
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in history]
    return {**found, "history": json.dumps(rows, sort_keys=True), "scores": (run / "scores.json").read_text()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
