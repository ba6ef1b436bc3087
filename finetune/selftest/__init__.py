"""`finetune selftest [RECIPE]`: do the house's own invariants hold here, for this recipe, on this machine?

A tiny model of the recipe's family learns from a few of the recipe's rows under the recipe's options; each check says
by how much two ways of doing the same thing differ, and how much is tolerated.
"""

from __future__ import annotations

import contextlib
import io
import json as json_module
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finetune.errors import CheckFailed, FinetuneError, Stopped, UserError

if TYPE_CHECKING:
    from finetune.recipe import Recipe

COLUMNS = ("check", "difference", "tolerance", "seconds", "result")
WIDTHS = (13, 12, 11, 9)
BROKEN = (FinetuneError, ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    name: str
    result: str  # "ok", "FAILED" or "left out"
    said: str  # what was compared, or why it was left out or failed
    difference: float | None = None
    tolerance: float | None = None
    seconds: float = 0.0

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
    """
    from finetune.selftest.checks import CHECKS, Stage
    from finetune.selftest.shrinking import quickstart, shrunk

    if recipe is None and overrides:
        raise UserError(
            f"--{next(iter(overrides))} is an option of a recipe: finetune selftest RECIPE --section.option …"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # equal bits are promised for an equal number of threads
    with TemporaryDirectory(prefix="finetune-selftest-") as name:
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
        content = {"passed": not failed, "notes": small.notes, "checks": [asdict(each) for each in outcomes]}
        json.write_text(json_module.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if failed:
        raise CheckFailed(f"selftest: {', '.join(failed)} failed: see the table. Results on this machine are in doubt.")
    return outcomes


def _outcome(check: Any, stage: Any) -> Outcome:
    """Run a check; one that breaks off has failed, and the others go on."""
    from finetune.selftest.checks import LeftOut

    name, started = check.__name__, time.monotonic()

    def made(result: str, said: str, difference: float | None = None, tolerance: float | None = None) -> Outcome:
        return Outcome(name, result, said, difference, tolerance, round(time.monotonic() - started, 2))

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = check(stage)
    except Stopped:
        raise  # a signal ends the command, and fails no check
    except LeftOut as reason:
        return made("left out", str(reason))
    except BROKEN as error:
        return made("FAILED", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    good = found.difference <= found.tolerance  # false for a difference that is not a number
    return made("ok" if good else "FAILED", found.said, found.difference, found.tolerance)


def _say(line: str) -> None:
    print(line, flush=True)
