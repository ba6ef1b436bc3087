"""A template that somebody else wrote, at work: so much time, so much memory, so much text, and no more.

Jinja's sandbox keeps a template from code and files, but not from loops within loops or from a text of 20 GB.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

SECONDS = 1.0  # of this process's own computing: a busy machine costs a template nothing
MEMORY = 1 << 28  # bytes
CHARACTERS = 1 << 24


class TooMuch(Exception):
    """A template took more than its share; the message says of what."""


def within_bounds(render: Callable[[], str]) -> str:
    """Return what `render` returns.

    The time is measured in a process's main thread alone, and the memory on Linux alone.

    Raises:
        TooMuch: it took more than SECONDS, MEMORY or CHARACTERS.
    """
    try:
        with _seconds(SECONDS), _memory(MEMORY):
            text = render()
    except MemoryError:
        raise TooMuch(f"it took more than {MEMORY >> 20} MB") from None
    if len(text) > CHARACTERS:
        raise TooMuch(f"it wrote {len(text):,} characters, and {CHARACTERS:,} are the most")
    return text


@lru_cache(maxsize=8)
def refuse_powers(template: str) -> None:
    """Raise TooMuch for a template with `**`: one step of Python's, within which no clock can stop 9 ** 9 ** 9."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        signs = [value for _, kind, value in Environment(autoescape=True).lex(template) if kind == "operator"]
    except TemplateSyntaxError:  # it is not rendered either, and then said
        return
    if "**" in signs:
        raise TooMuch("it raises numbers to a power, which no conversation needs")


@contextmanager
def _seconds(most: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGVTALRM"):
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _stop(_number: int, _frame: Any) -> None:
    raise TooMuch(f"it took more than {SECONDS:g} s")


@contextmanager
def _memory(most: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = [used + most, *(each for each in (soft, hard) if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(allowed), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
