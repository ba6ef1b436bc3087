"""Patterns of a recipe or of somebody's adapter, with a time limit: `re` itself never gives up."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Iterable

from finetune.errors import UserError

PATIENCE = 1.0  # seconds for all names together
LONGEST = 8_000  # characters; regex compiles about 20,000 of them a second
COUNTED = 1 << 18  # characters times the counts in {}, which regex writes out one by one


def names_that_match(pattern: str, names: Iterable[str], option: str) -> list[str]:
    """Return the names that a pattern matches as a whole, as PEFT's `re.fullmatch` would.

    Raises:
        UserError: it is no pattern of `re`, is long, counts far, or takes longer than PATIENCE.
    """
    import regex  # unlike re, it stops when a time is over

    if len(pattern) > LONGEST:
        raise UserError(
            f"{option}: {_short(pattern)} has {len(pattern):,} characters, and at most {LONGEST:,} are read."
        )
    counts = [
        max(int(least or 0), int(most or 0), 1) for least, most in re.findall(r"\{(\d{0,9}),?(\d{0,9})\}", pattern)
    ]
    if len(pattern) * math.prod(counts) > COUNTED:
        raise UserError(f"{option}: {_short(pattern)} counts too far in {{}}; name the modules instead.")
    end = time.monotonic() + PATIENCE
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of sets that may nest some day
            re.compile(pattern)  # what PEFT would take; regex knows forms that take it far longer to compile
        compiled = regex.compile(pattern)
        return [name for name in names if compiled.fullmatch(name, timeout=max(end - time.monotonic(), 0.001))]
    except (regex.error, re.error, OverflowError) as error:
        raise UserError(f"{option}: {_short(pattern)} is no regular expression: {error}.") from None
    except (TimeoutError, RecursionError, MemoryError):
        raise UserError(
            f"{option}: {_short(pattern)} takes longer than {PATIENCE:g} s to match; name the modules instead."
        ) from None


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else f"{pattern[:79]}…")
