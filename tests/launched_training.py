"""What the tests of training do in two processes, all in one launch: FOLDER gets a result-RANK.json and weights.

accelerate launch --config_file accelerate_configs/cpu.yaml tests/launched_training.py FOLDER [ddp|zero]
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

from finetune.endings import leave_group
from finetune.errors import CheckFailed, FinetuneError

FOLDER = Path(sys.argv[1])


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


def poisoned() -> str:
    poison = [1.0] * 16
    poison[6] = float("nan")  # the second process's
    inputs = rows(16).remove_columns("poison").add_column("poison", poison)
    run = trainer(
        FOLDER / "poisoned", train=inputs, per_device_train_batch_size=4, train_sampling_strategy="sequential"
    )
    try:
        run.train()
    except FinetuneError as error:
        return f"{type(error).__name__}: {error}"
    return "trained"


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
    if sys.argv[2:] == ["zero"]:
        results["resumed"] = resumed("zero", lambda: rows(37), num_train_epochs=2)
        results["steps"] = {"False-37": steps_of_one(False, 37)}
        results["adapter"] = resumed("zero-lora", lambda: rows(37), adapter=True, num_train_epochs=2)
    else:
        results["steps"] = {
            f"{adapter}-{count}": steps_of_one(adapter, count) for adapter in (False, True) for count in (33, 37)
        }
        results["resumed"] = resumed("ddp", lambda: rows(37), num_train_epochs=2)
        results["stream"] = resumed("stream", lambda: rows(21).to_iterable_dataset(), max_steps=8)
        results["poisoned"] = poisoned()
        results["full"] = full()
        results["failed"] = failed()
    state = PartialState()
    results |= {"world": state.num_processes, "type": str(state.distributed_type), "device": str(state.device)}
    (FOLDER / f"result-{os.environ['RANK']}.json").write_text(json.dumps(results))
    leave_group(0)


if __name__ == "__main__":
    main()
