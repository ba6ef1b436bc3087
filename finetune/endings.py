"""How a command ends: the exit code and the one line for what went wrong."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from finetune.errors import EnvironmentFailed, FinetuneError, Stopped, UserError
from finetune.machine import refused
from finetune.publishing.scrubbing import without_secrets

PANIC = "PanicException"  # of Rust, in tokenizers: no Exception to Python, and a class that cannot be imported
INTERRUPTED, TERMINATED = 130, 143  # as a shell has it for SIGINT and SIGTERM
PATIENCE = 60  # seconds that another rank leaves to rank 0


class Terminated(KeyboardInterrupt):
    """SIGTERM, where nothing notes it and goes on to a better place to stop."""


def ending(error: BaseException, resumes: bool = False, overwrites: bool = False) -> tuple[int, str] | None:
    """Return (exit code, line) for an exception, or None for one that is a fault of ours and keeps its traceback.

    Args:
        error: that ended a command.
        resumes: the same command goes on from what it has saved.
        overwrites: but for its --overwrite, which starts anew.
    """
    if isinstance(error, FinetuneError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        code, what = (
            (TERMINATED, "stopped by SIGTERM") if isinstance(error, Terminated) else (INTERRUPTED, "interrupted")
        )
        again = "the same command without --overwrite" if overwrites else "the same command"
        return code, f"{what}; {again} goes on from its last checkpoint, if it has one." if resumes else what
    if type(error).__name__ == PANIC:
        why = " ".join(str(error).split())
        return 2, f"the tokenizer gave up on a text ({why}): its tokenizer.json has a pattern that would take for ever."
    machine = refused(error)
    return None if machine is None else (EnvironmentFailed.exit_code, machine)


@contextmanager
def terminated() -> Iterator[None]:
    """Let SIGTERM end what is done inside as Ctrl-C does, by an exception, so that what it started ends with it."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def say(error: BaseException, line: str) -> None:
    """Print the line that ends a command: on rank 0, or on another rank what it alone can know.

    Every rank reads the same recipe and files. So another rank waits for rank 0 to say what it found, whose end ends
    all; were it gone before, rank 0 could fail for want of it, and nobody would have said why.
    """
    rank = int(os.environ.get("RANK", "0"))
    if rank and isinstance(error, KeyboardInterrupt | Stopped):
        return
    if rank and isinstance(error, UserError):
        time.sleep(PATIENCE)  # still here: rank 0 has not met it
    own = f" (rank {rank})" if rank else ""
    sys.stderr.write(f"finetune{own}: {without_secrets(' '.join(line.split()))}\n")


def leave_group(code: int) -> None:
    """End a process that is one of a launch, without the interpreter's teardown; return in any other.

    DistributedDataParallel keeps gloo's threads alive past `destroy_process_group`, and tearing them down aborts now
    and then (exit code -6, "terminate called without an active exception") when all work is done. What would have run
    at a normal exit runs here: threads are joined, exit handlers called, streams flushed.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    if distributed.get_backend() != "gloo":
        if not code:
            distributed.destroy_process_group()  # NCCL warns when this is left out, and may hang in it after a failure
        return
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
