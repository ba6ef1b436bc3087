"""Patterns of a recipe or of somebody's adapter, with a time limit: `re` itself never gives up."""

from __future__ import annotations

import time
from collections.abc import Iterable

from finetune.errors import UserError

PATIENCE = 1.0  # seconds for all names together


def names_that_match(pattern: str, names: Iterable[str], option: str) -> list[str]:
    """Return the names that a pattern matches as a whole, as PEFT's `re.fullmatch` would.

    Raises:
        UserError: it is no pattern, or takes longer than PATIENCE.
    """
    import regex  # unlike re, it stops when a time is over

    end = time.monotonic() + PATIENCE
    try:
        compiled = regex.compile(pattern)
        return [name for name in names if compiled.fullmatch(name, timeout=max(end - time.monotonic(), 0.001))]
    except regex.error as error:
        raise UserError(f"{option}: {_short(pattern)} is no regular expression: {error}.") from None
    except (TimeoutError, RecursionError, MemoryError):
        raise UserError(
            f"{option}: {_short(pattern)} takes longer than {PATIENCE:g} s to match; name the modules instead."
        ) from None


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else f"{pattern[:79]}…")
