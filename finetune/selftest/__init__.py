"""`finetune selftest [RECIPE]`: do the house's own invariants hold here, for this recipe, on this machine?

A tiny model of the recipe's family learns from a few of the recipe's rows under the recipe's options; each check says
by how much two ways of doing the same thing differ, and how much is tolerated.
"""

from __future__ import annotations

import contextlib
import io
import json as json_module
import math
import os
import re
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finetune.errors import DISCARDED, CheckFailed, EnvironmentFailed, FinetuneError, Stopped, UserError
from finetune.machine import refused

if TYPE_CHECKING:
    from finetune.recipe import Recipe

COLUMNS = ("check", "difference", "tolerance", "seconds", "result")
WIDTHS = (13, 12, 11, 9)


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    name: str
    result: str  # "ok", "FAILED" or "left out"
    said: str  # what was compared, or why it was left out or failed
    difference: float | None = None
    tolerance: float | None = None
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return the outcome for a file; JSON has no number for a difference that is infinite or none."""
        finite = self.difference is not None and math.isfinite(self.difference)
        return {**asdict(self), "difference": self.difference if finite else None}

    def line(self) -> str:
        """Return the outcome as a row of the table."""
        numbers = ["-" if each is None else f"{each:.2g}" for each in (self.difference, self.tolerance)]
        cells = (self.name, *numbers, f"{self.seconds:.1f}")
        return "".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)) + (
            f"{self.result:<9} {self.said}"
        )


def selftest(
    recipe: Recipe | None = None, json: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Hold a recipe's options against themselves on a tiny model, print a table, and return its rows.

    Without a recipe: LoRA on a BERT that classifies generated sentences, as the quickstart.

    Raises:
        UserError: the recipe or its rows are not right.
        CheckFailed: a check failed; the line names which.
        EnvironmentFailed, OSError, MemoryError, RuntimeError: the machine had no disk or memory left.
        Stopped: by a signal, and nothing is kept.
    """
    from finetune.selftest.checks import CHECKS
    from finetune.selftest.shrinking import quickstart, shrunk
    from finetune.selftest.stage import Stage

    if recipe is None and overrides:
        raise UserError(
            f"--{next(iter(overrides))} is an option of a recipe: finetune selftest RECIPE --section.option …"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # equal bits are promised for an equal number of threads
    with TemporaryDirectory(prefix="finetune-selftest-") as name, _stopped():
        folder, printed = Path(name), io.StringIO()
        with contextlib.redirect_stdout(printed):
            small = shrunk(quickstart() if recipe is None else recipe, folder)
        for line in small.notes:
            _say(line)
        _say("".join(f"{name:<{width}}" for name, width in zip(COLUMNS, (*WIDTHS, 0), strict=True)))
        stage = Stage(small, folder)
        outcomes = []
        for check in CHECKS:
            outcomes.append(_outcome(check, stage))
            _say(outcomes[-1].line())
    failed = [each.name for each in outcomes if each.result == "FAILED"]
    if json is not None:
        content = {"passed": not failed, "notes": small.notes, "checks": [each.plain() for each in outcomes]}
        text = json_module.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        json.write_text(text + "\n", encoding="utf-8")
    if failed:
        raise CheckFailed(f"selftest: {', '.join(failed)} failed: see the table. Results on this machine are in doubt.")
    return outcomes


def _outcome(check: Any, stage: Any) -> Outcome:
    """Run a check; one that breaks off has failed, and the others go on. What is a fault of ours is said in full."""
    from finetune.selftest.stage import LeftOut

    name, started = check.__name__, time.monotonic()

    def made(result: str, said: str, difference: float | None = None, tolerance: float | None = None) -> Outcome:
        return Outcome(name, result, said, difference, tolerance, round(time.monotonic() - started, 2))

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = check(stage)
    except (Stopped, EnvironmentFailed):
        raise  # a signal or the machine ends the command, and fails no check
    except LeftOut as reason:
        return made("left out", str(reason))
    except FinetuneError as error:
        gone = rf" \(all in {re.escape(str(stage.folder))}\S*\)"
        return made("FAILED", _short(f"{type(error).__name__}: {re.sub(gone, '', str(error))}"))
    except Exception as error:
        if refused(error):
            raise
        traceback.print_exception(error)
        return made("FAILED", _short(f"{type(error).__name__}: {error}"))
    good = found.difference <= found.tolerance  # false for a difference that is not a number
    return made("ok" if good else "FAILED", found.said, found.difference, found.tolerance)


@contextlib.contextmanager
def _stopped() -> Iterator[None]:
    """Say of a training whose folder goes that no checkpoint of it is kept."""
    try:
        yield
    except Stopped as error:
        cause = str(error).partition(" after step ")[0]
        raise Stopped(f"selftest: {cause}; {DISCARDED}") from None


def _short(text: str) -> str:
    return " ".join(text.split())[:300]


def _say(line: str) -> None:
    print(line, flush=True)
