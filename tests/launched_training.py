"""What the tests of training do in two processes, all in one launch: FOLDER gets a result-RANK.json and weights.

accelerate launch --config_file accelerate_configs/cpu.yaml tests/launched_training.py FOLDER [ddp|ruined|zero|zero3]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_training import SGD, model, rows, trainer, weights
from transformers import TrainerCallback

from finetune.endings import leave_group
from finetune.errors import CheckFailed, FinetuneError
from finetune.training import ranks

FOLDER = Path(sys.argv[1])
STEPS = 16
SOURCES = ("label", "weights", "rate")
RUINED = [(source, step) for source in SOURCES for step in range(1, STEPS + 1)]
OFTEN = [(source, step) for source, step in RUINED if source == SOURCES[step % 3]]
RUINED_IN_SHARDS = [(source, step) for source in (*SOURCES, "gradient") for step in (1, 4)]


class Killed(BaseException):
    """Ends a training as a kill would."""


def killed_after(run: Any, step: int) -> None:
    inner = run.callback_handler.on_step_begin

    def begin(args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if state.global_step == step:
            raise Killed
        return inner(args, state, control, **kwargs)

    run.callback_handler.on_step_begin = begin
    try:
        run.train()
    except Killed:
        return
    raise AssertionError("the training ended before it was killed")


def same(one: Any, other: Any) -> bool:
    left, right = weights(one.model), weights(other.model)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def steps_of_one(adapter: bool, count: int) -> dict[str, Any]:
    run = trainer(
        FOLDER / f"steps-{adapter}-{count}",
        train=rows(count),
        evaluate=rows(19, 1),
        network=model(adapter=adapter),
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        load_best_model_at_end=False,
        logging_steps=1,
        **SGD,
    )
    run.train()
    answers = run.answers(rows(19, 1))
    if run.is_world_process_zero():
        save_file(weights(run.model), FOLDER / f"steps-{adapter}-{count}.safetensors")
        save_file({"logits": torch.from_numpy(answers["logits"])}, FOLDER / f"answers-{adapter}-{count}.safetensors")
    return {
        "history": run.history,
        "one": len(run.answers(rows(1))["logits"]),
        "tokens": run.state.num_input_tokens_seen,
    }


def resumed(name: str, train: Any, adapter: bool = False, **options: Any) -> dict[str, Any]:
    def made(folder: str) -> Any:
        return trainer(
            FOLDER / folder,
            train=train(),
            evaluate=rows(9, 1),
            network=model(0.1, adapter),
            eval_strategy="steps",
            eval_steps=1,
            save_steps=1,
            **{"per_device_train_batch_size": 4, **options},
        )

    unbroken = made(f"{name}-unbroken")
    unbroken.train()
    broken = made(f"{name}-broken")
    killed_after(broken, 3)
    again = made(f"{name}-broken")
    again.train(resume_from_checkpoint=True)
    files = [each.name for each in (FOLDER / f"{name}-broken").rglob("*") if each.is_file()]
    return {
        "same": same(again, unbroken),
        "files": sorted(set(files)),
        "best": again.state.best_global_step is not None,
    }


class Ruin(TrainerCallback):
    """Ruins a step (from 1) of one process; on all it saves before that step and, should it be taken, after it."""

    def __init__(self, run: Any, step: int, source: str, value: float) -> None:
        self.run, self.step, self.source, self.value = run, step, source, value

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step != self.step - 1 or args.process_index != self.step % 2:
            return
        first = next(each for each in self.run.model.parameters() if each.requires_grad)
        if self.source == "rate":
            for group in kwargs["optimizer"].param_groups:
                group["lr"] = self.value
        elif self.source == "weights":
            for each in (first, getattr(first, "ds_tensor", first)):  # ZeRO-3: what is gathered, and the own share
                each.data.view(-1)[:] = self.value
        elif self.source == "gradient":
            first.register_hook(lambda found: found * self.value)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        control.should_save = state.global_step >= self.step - 1
        return control


def ruined(source: str, step: int) -> dict[str, Any]:
    """Train with one row a step and process, ruined at a step; return how it ended and what was written."""
    folder, value = FOLDER / f"ruined-{source}-{step}", float("nan" if step // 2 % 2 else "inf")
    poison = [1.0] * 2 * STEPS
    if source == "label":
        poison[2 * (step - 1) + step % 2] = value
    run = trainer(
        folder,
        train=rows(2 * STEPS).remove_columns("poison").add_column("poison", poison),
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        num_train_epochs=1,
        save_strategy="no",
        **SGD,
    )
    run.add_callback(Ruin(run, step, source, value))
    said = "trained"
    try:
        run.train()
    except FinetuneError as error:
        said = f"{type(error).__name__}: {error}"
    ranks.together(None, run.args.device)
    told = json.loads((folder / "nonfinite.json").read_text()) if (folder / "nonfinite.json").exists() else {}
    kept = [each.name for each in (folder / "checkpoints").glob("*")]
    return {"cell": [source, step], "said": said, "step": told.get("step"), "rows": told.get("row_ids"), "kept": kept}


def full() -> str:
    run = trainer(FOLDER / "full", train=rows(16), max_steps=1)
    run._bytes_needed = lambda: 2**70
    try:
        run.train()
    except FinetuneError as error:
        return type(error).__name__
    return "trained"


def failed() -> str:
    def work() -> None:
        raise CheckFailed("the best one is damaged.")

    try:
        trainer(FOLDER / "failed", train=rows(16), max_steps=1)._together(work)
    except FinetuneError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main() -> None:
    from accelerate import PartialState

    results: dict[str, Any] = {}
    if sys.argv[2:] == ["zero3"]:
        results["ruined"] = [ruined(*each) for each in RUINED_IN_SHARDS]
    elif sys.argv[2:] == ["ruined"]:
        results["ruined"] = [ruined(*each) for each in RUINED if each not in OFTEN]
    elif sys.argv[2:] == ["zero"]:
        results["resumed"] = resumed("zero", lambda: rows(37), num_train_epochs=2)
        results["steps"] = {"False-37": steps_of_one(False, 37)}
        results["adapter"] = resumed("zero-lora", lambda: rows(37), adapter=True, num_train_epochs=2)
        results["ruined"] = [ruined(*each) for each in RUINED_IN_SHARDS]
    else:
        results["steps"] = {
            f"{adapter}-{count}": steps_of_one(adapter, count) for adapter in (False, True) for count in (33, 37)
        }
        results["resumed"] = resumed("ddp", lambda: rows(37), num_train_epochs=2)
        results["stream"] = resumed("stream", lambda: rows(21).to_iterable_dataset(), max_steps=8)
        results["ruined"] = [ruined(*each) for each in RUINED if each in OFTEN]
        results["full"] = full()
        results["failed"] = failed()
    state = PartialState()
    results |= {"world": state.num_processes, "type": str(state.distributed_type), "device": str(state.device)}
    (FOLDER / f"result-{os.environ['RANK']}.json").write_text(json.dumps(results))
    leave_group(0)


if __name__ == "__main__":
    main()
