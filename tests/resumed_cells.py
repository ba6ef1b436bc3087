"""Resume against no interruption for every way that rows come: what the tests of line R3 do, in one process or in two.

accelerate launch --multi_gpu --num_processes 2 tests/resumed_cells.py FOLDER      # writes FOLDER/cells-RANK.json
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from tiny_training import Parity, model, rows, trainer, weights

from finetune.models.noise import uniform
from finetune.training import checkpoints, ranks

ROWS, STEPS_AN_EPOCH, EPOCHS = 37, 5, 2  # eight rows a step
STOPS = {"mid-epoch": 3, "boundary": 5, "second epoch": 8}
DATA = ("map", "stream", "grouped", "masked")
CELLS = list(itertools.product(DATA, (1, 4), ("dropout", "lora")))


@dataclass(frozen=True)
class Masked(Parity):
    """Parity of numbers some of which are hidden, others at every step, by a hash of seed, step and row."""

    draws: ClassVar[bool] = True

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
        hidden = uniform(batch["keys"], batch["input_ids"].shape[1]) < 0.3
        return super().loss(model, {**batch, "input_ids": batch["input_ids"].masked_fill(hidden, 4)})


def made(folder: Path, data: str, accumulation: int, net: str) -> Any:
    """Return a trainer of a cell that keeps a ledger: [step, row ids] of this process."""
    inputs = rows(ROWS)
    more: dict[str, Any] = {"num_train_epochs": EPOCHS}
    if data == "stream":
        inputs = inputs.to_iterable_dataset().shuffle(seed=3, buffer_size=8)
        more = {"max_steps": STEPS_AN_EPOCH * EPOCHS}
    if data == "grouped":
        more["train_sampling_strategy"] = "group_by_length"
    run = trainer(
        folder,
        train=inputs,
        task=Masked() if data == "masked" else Parity(),
        network=model(0.1, adapter=net == "lora"),
        per_device_train_batch_size=8 // accumulation // int(os.environ.get("WORLD_SIZE", "1")),
        gradient_accumulation_steps=accumulation,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=None,
        logging_steps=2,
        lr_scheduler_type="cosine",
        **more,
    )
    run.ledger = []
    step = run.training_step

    def noted(*args: Any, **kwargs: Any) -> Any:
        if not run.ledger or run.ledger[-1][0] != run.state.global_step:
            ids = [row for each in run._carried if not each.stand_in for row in each.row_ids]
            run.ledger.append([run.state.global_step, ids])
        return step(*args, **kwargs)

    run.training_step = noted
    return run


def state(run: Any) -> dict[str, Any]:
    moments = run.optimizer.state_dict()["state"]
    return {**weights(run.model), **{f"{n}.{k}": v for n, each in moments.items() for k, v in each.items()}}


def history(run: Any) -> list[dict[str, Any]]:
    timed = ("tokens_per_second", "train_runtime")
    return [{name: value for name, value in row.items() if name not in timed} for row in run.history]


def seen(run: Any, before: list[Any], streamed: bool) -> Counter:
    """Return how often each row was learned from in each epoch, over all processes: {(epoch, row): times}.

    Rows that lie at hand are dealt to the processes step by step. Of a stream each process reads its own share of every
    epoch, 19 or 18 of 37 rows, and goes on to the next epoch when that is over, a step before the others perhaps.
    """
    ledgers = ranks.all_said([*before, *run.ledger], run.args.device)
    if not streamed:
        steps: dict[int, list[str]] = {}
        for step, ids in (each for ledger in ledgers for each in ledger):
            steps.setdefault(step, []).extend(ids)
        ledgers = [sorted(steps.items())]
    counts: Counter = Counter()
    for number, ledger in enumerate(ledgers):
        share = len(range(number, ROWS, len(ledgers)))
        counts.update((place // share, row) for place, row in enumerate(row for _, ids in ledger for row in ids))
    return counts


def cell(folder: Path, data: str, accumulation: int, net: str) -> dict[str, Any]:
    """Train a cell unbroken, and from its checkpoints at each stop; say what is the same."""
    found: dict[str, Any] = {"cell": [data, accumulation, net], "different": [], "ledger": []}
    unbroken = made(folder / "unbroken", data, accumulation, net)
    unbroken.train()
    for name, stop in STOPS.items():
        broken = folder / name.replace(" ", "-")
        if ranks.rank() == 0:
            for step in range(max(1, stop - 1), stop + 1):
                source = checkpoints.checkpoint_path(unbroken.checkpoints, step)
                shutil.copytree(source, checkpoints.checkpoint_path(broken / "checkpoints", step))
        ranks.together(None, unbroken.args.device)
        run = made(broken, data, accumulation, net)
        run.train(resume_from_checkpoint=True)
        one, other = state(unbroken), state(run)
        same = one.keys() == other.keys() and all(torch.equal(one[each], other[each]) for each in one)
        if not same or history(run) != history(unbroken) or run.ledger[0][0] != stop:
            found["different"].append(name)
        counts = seen(run, [each for each in unbroken.ledger if each[0] < stop], data == "stream")
        whole = sum(epoch < EPOCHS for epoch, _ in counts)  # a stream goes on into its third time within the last step
        if set(counts.values()) != {1} or whole != ROWS * EPOCHS:
            found["ledger"].append(name)
    shutil.rmtree(folder) if ranks.rank() == 0 else None
    return found


def main() -> None:
    from finetune.endings import leave_group

    folder = Path(sys.argv[1])
    found = [cell(folder / "-".join(map(str, each)), *each) for each in CELLS]
    (folder / f"cells-{os.environ['RANK']}.json").write_text(json.dumps({"world": ranks.world(), "cells": found}))
    leave_group(0)


if __name__ == "__main__":
    main()
