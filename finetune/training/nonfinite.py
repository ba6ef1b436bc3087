"""The stop before a step that would ruin the weights, or, with a budget, that step left out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from finetune.errors import CheckFailed
from finetune.training import ranks

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from finetune.training.options import TrainOptions

FILE = "nonfinite.json"
SHOWN = 5  # rows named in the message; all are in the file
WHOLE = "the step was not taken"
TAKEN = "the step was taken, and is in no checkpoint"


def clear(args: TrainingArguments) -> None:
    """Remove what an earlier training of this folder reported: it is being tried again."""
    if args.process_index == 0:
        (Path(str(args.output_dir)) / FILE).unlink(missing_ok=True)


def report(
    args: TrainingArguments,
    step: int,
    what: str,
    row_ids: list[list[str]],
    skipped: Skipped | None = None,
    left: str = WHOLE,
) -> NoReturn:
    """Save the rows of the micro-batches at fault and stop, on every process.

    Args:
        args: name the output_dir.
        step: the number of the step, from 1.
        what: is wrong, as a clause.
        row_ids: of this process's micro-batches at fault; [] when another process has them.
        skipped: what was left out before.
        left: what of the step was not taken, or that it was, as a clause.

    Raises:
        CheckFailed: always.
    """
    rows = _of_all(args, row_ids)
    path = _write(args, {"step": step, "what": what, "row_ids": rows}, skipped)
    spent = f" {skipped.said()} before it." if skipped is not None and skipped.count else ""
    raise CheckFailed(
        f"step {step}: {what}; {left}.{spent} Its batch: {_named(rows)} (all in {path}). "
        "Look at these rows; if they are sound, lower train.learning_rate or set train.bf16 to false."
    )


class Skipped:
    """The steps that were left out because a number in them was not finite; at most `train.nan_budget` of them."""

    def __init__(self, args: TrainOptions) -> None:
        self.args = args
        self.steps: list[dict[str, Any]] = []  # each with its rows of all processes; those of before a resume too

    @property
    def count(self) -> int:
        """The number of steps that were left out."""
        return len(self.steps)

    def go_on(self, steps: list[dict[str, Any]]) -> None:
        """Take over what was left out before a resume."""
        self.steps = [*steps]
        if steps:
            _write(self.args, {}, self)

    @property
    def is_full(self) -> bool:
        """Say whether no further step may be left out."""
        return self.count >= self.args.nan_budget

    def add(self, step: int, what: str, row_ids: list[list[str]]) -> None:
        """Note a step that is left out, with the rows of its micro-batches at fault; said once, by process 0."""
        rows = _of_all(self.args, row_ids)
        self.steps.append({"step": step, "what": what, "row_ids": rows})
        _write(self.args, {}, self)
        if self.args.process_index == 0:
            spent = f"{self.count} of train.nan_budget {self.args.nan_budget}"
            print(f"Beware: step {step} is left out ({spent}): {what}. Its batch: {_named(rows)}", flush=True)

    def said(self) -> str:
        """Return how many steps were left out, in words; "" for none."""
        steps = "step was" if self.count == 1 else "steps were"
        return f"{self.count} {steps} left out (train.nan_budget {self.args.nan_budget})" if self.count else ""

    def alarms(self) -> tuple[str, ...]:
        """Return the sentence for the report, if there is one to be said."""
        if not self.count:
            return ()
        return (f"{self.said()}, for their loss or gradient was not a finite number; the rows are in {FILE}.",)


def _of_all(args: TrainingArguments, row_ids: list[list[str]]) -> list[str]:
    return [*itertools.chain.from_iterable(ranks.all_said([*itertools.chain.from_iterable(row_ids)], args.device))]


def _named(rows: list[str]) -> str:
    named = ", ".join(rows[:SHOWN]) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
    return named or "rows without ids"


def _write(args: TrainingArguments, content: dict[str, Any], skipped: Skipped | None) -> Path:
    path = Path(str(args.output_dir)) / FILE
    if args.process_index == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content | ({"skipped": skipped.steps} if skipped is not None and skipped.steps else {})
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
