"""What ends a command, and with which exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FinetuneError(Exception):
    """Ends the command with one line on stderr and no traceback."""

    exit_code = 1


class UserError(FinetuneError):
    """A mistake in a recipe, a file or a command: the line says what, where, what is near and what to do."""

    exit_code = 2


class CheckFailed(FinetuneError):
    """A run that failed a check of its own: it diverged, or what was saved is not what was trained."""

    exit_code = 3


class EnvironmentFailed(FinetuneError):
    """The machine said no: disk, memory or network."""

    exit_code = 4


DISCARDED = "nothing of it is kept, and the same command starts it anew."


class Stopped(FinetuneError):
    """A training was asked to stop, and did so; the code is a shell's for SIGTERM.

    There is a checkpoint of it, unless what it made goes with its command: then DISCARDED ends the line.
    """

    exit_code = 143


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return " Did you mean X?" with the nearest known name, or "" when none is near."""
    near = difflib.get_close_matches(str(given), [str(name) for name in known], n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""
