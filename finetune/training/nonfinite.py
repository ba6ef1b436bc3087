"""The stop before a step that would ruin the weights."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from finetune.errors import CheckFailed
from finetune.training import ranks

if TYPE_CHECKING:
    from transformers import TrainingArguments

FILE = "nonfinite.json"
SHOWN = 5  # rows named in the message; all are in the file


def clear(args: TrainingArguments) -> None:
    """Remove what an earlier training of this folder reported: it is being tried again."""
    if args.process_index == 0:
        (Path(str(args.output_dir)) / FILE).unlink(missing_ok=True)


def report(args: TrainingArguments, step: int, what: str, row_ids: list[list[str]]) -> NoReturn:
    """Save the rows of the micro-batches at fault and stop, on every process.

    Args:
        args: name the output_dir.
        step: the optimiser step that was not taken, from 1.
        what: is wrong, as a clause.
        row_ids: of this process's micro-batches at fault; [] when another process has them.

    Raises:
        CheckFailed: always.
    """
    rows = list(itertools.chain.from_iterable(ranks.all_said([*itertools.chain.from_iterable(row_ids)], args.device)))
    path = Path(str(args.output_dir)) / FILE
    if args.process_index == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"step": step, "what": what, "row_ids": rows}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    named = ", ".join(rows[:SHOWN]) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
    raise CheckFailed(
        f"step {step}: {what}; the step was not taken. Its batch: {named or 'rows without ids'} (all in {path}). "
        "Look at these rows; if they are sound, lower train.learning_rate or set train.bf16 to false."
    )
