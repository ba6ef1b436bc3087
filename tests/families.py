"""What a process has started, and what of it outlives it."""

from __future__ import annotations

import psutil


def family(*pids: int) -> list[psutil.Process]:
    """Return all that these processes have started and that is there now."""
    return [each for pid in pids for each in psutil.Process(pid).children(recursive=True)]


def left(members: list[psutil.Process], seconds: float = 1) -> list[psutil.Process]:
    """Return what still runs after a moment; what has ended may wait for an init that never reads its exit code."""
    found = []
    for each in psutil.wait_procs(members, timeout=seconds)[1]:
        try:
            if each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.NoSuchProcess:
            continue  # it has ended meanwhile
    return found
