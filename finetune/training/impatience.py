"""What signals do while a run trains: the first is a wish that it stops at a good place, a second one ends it.

A handler of Python's waits until the call that is under way comes back, which a collective that hangs does not. So a
thread reads the signals' numbers from a pipe, into which the interpreter writes them at once.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.util import register_after_fork
from pathlib import Path

from finetune.errors import Stopped

ONE_WISH = 1.0  # seconds in which a terminal and a launcher may both hand on one wish of the user
OVER = b"\0"  # the number of no signal


@contextmanager
def impatient(numbers: Collection[int], going_on: Callable[[], str], discarded: Path | None = None) -> Iterator[None]:
    """Say at the first of some signals that a step is waited for; at another, later, end this process with 143.

    Only for the main thread, and for signals that have a handler of Python's.

    Args:
        numbers: of the signals.
        going_on: says what the same command goes on from if this process ends now.
        discarded: a folder that goes with this process, however it ends.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reader, numbers, going_on, discarded), daemon=True)
    register_after_fork(thread, _let_go)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writer, OVER)
        thread.join()
        os.close(reader)
        os.close(writer)


def _listen(reader: int, numbers: Collection[int], going_on: Callable[[], str], discarded: Path | None) -> None:
    heard = False
    stops = "stops and is saved" if discarded is None else "stops"
    while (byte := os.read(reader, 1)) != OVER:
        if byte[0] not in numbers:
            continue
        name = signal.Signals(byte[0]).name
        if not heard:
            heard = True
            _say(f"{name}: the run {stops} at the end of a step; a second one ends it at once.")
            if _is_over_within(reader, ONE_WISH):
                return
        else:
            try:
                _say(f"ended by a second {name}: {going_on()}")
                for each in multiprocessing.active_children():  # they look for their parent every few seconds only
                    each.kill()
                if discarded is not None:
                    shutil.rmtree(discarded, ignore_errors=True)
            finally:
                os._exit(Stopped.exit_code)  # as a kill would: what was being written is discarded by the next start


def _is_over_within(reader: int, seconds: float) -> bool:
    """Pass over what comes within some seconds, and what has come when they are over; say whether it was the end."""
    until, left = time.monotonic() + seconds, seconds
    while select.select([reader], [], [], max(left, 0))[0]:
        if os.read(reader, 1) == OVER:
            return True
        left = until - time.monotonic()
    return False


def leave_signals_to_the_parent(_: int) -> None:
    """In a process that reads data, by its number: end by a SIGTERM of the parent alone.

    A launcher and a batch system signal whole groups, and a training whose reader is gone ends with an error.
    """
    if hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(128 + signal.SIGTERM)


def _say(line: str) -> None:
    """Write past Python's streams, whose locks the main thread may hold; on one process a machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with suppress(OSError):  # Ctrl-C has ended the `tee` that read it: the signal counts all the same
            os.write(2, f"finetune: {line}\n".encode())


def _let_go(_: object) -> None:
    """In a process that was forked to read data: what it hears is not its parent's."""
    signal.set_wakeup_fd(-1)
