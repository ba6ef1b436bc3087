"""What this trainer's checkpoints and checks cost beside the stock Trainer's: time a step, in turns, saving alike.

python benchmarks/checkpoints.py [--steps 200] [--save_steps 100] [--rounds 5]

MiniLM, every weight, batches of 16 rows that are all cut to 24 tokens, so that both meet the same work. A third
contender is this trainer without saving: what the rest of it costs. The whole time of a round is at the mercy of what
else the machine does; the median step and the seconds of a save are not, and what they come to is printed last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback

from finetune.preparation import Prepared, prepare
from finetune.recipe import Recipe
from finetune.run import build_trainer, load_model

LENGTH, BATCH = 24, 16


def main() -> None:
    """Print seconds a step of each contender, median of the rounds, and the paired ratios to the stock Trainer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save_steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="another encoder than the quickstart's: a folder or a Hub id")
    given = parser.parse_args()
    if not 2 <= given.save_steps <= given.steps:  # else no save is timed, or no step that follows another
        parser.error(f"--save_steps {given.save_steps}: give 2 or more, and no more than --steps {given.steps}")
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: give 1 or more")
    names = ("stock", "finetune", "finetune, no saves")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    clocks = {name: Clock() for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        train = {
            "output_dir": f"{scratch}/run", "max_steps": given.steps, "save_strategy": "steps", "eval_strategy": "no",
            "save_steps": given.save_steps, "per_device_train_batch_size": BATCH, "bf16": False, "report_to": "none",
            "learning_rate": 2e-5, "disable_tqdm": True, "logging_steps": 10, "overwrite": True,
        }  # fmt: skip
        model = {} if given.model is None else {"model.path": given.model, "model.sha256": None}
        recipe = Recipe.read(
            Path(__file__).parents[1] / "recipes" / "quickstart.yaml",
            {"task.max_length": LENGTH, **model, **{f"train.{name}": value for name, value in train.items()}},
        )
        prepared = _even(prepare(replace(recipe, adapter=None)))
        for turn in range(given.rounds):
            first = turn % len(seconds)
            for name, each in [*seconds.items()][first:] + [*seconds.items()][:first]:
                folder = Path(scratch) / f"{turn}-{name}"
                run = _stock(prepared, folder) if name == "stock" else _own(prepared, folder, "no saves" not in name)
                clocks[name].hold(run)
                each.append(_timed(run, given.steps))
    stock = seconds["stock"]
    print(f"{given.steps} steps, saved every {given.save_steps}, {given.rounds} rounds in turns")
    for name, each in seconds.items():
        more = [100 * (own / other - 1) for own, other in zip(each, stock, strict=True)]
        print(
            f"{name:<20} {1e3 * statistics.median(each):8.1f} ms a step  {statistics.median(more):+6.2f} % "
            f"({min(more):+.2f} to {max(more):+.2f})   median step {1e3 * clocks[name].step:.1f} ms"
            + (f", a save {clocks[name].save:.2f} s" if clocks[name].saves else "")
        )
    own, other = (clocks[name].step * given.save_steps + clocks[name].save for name in ("finetune", "stock"))
    print(f"{given.save_steps} median steps and a median save: {100 * (own / other - 1):+.2f} % to the stock Trainer's")


class Clock(TrainerCallback):
    """The seconds of each step and of each save of a contender, over all rounds."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.saves: list[float] = []
        self._last = 0.0  # the end of a step, when nothing but steps came after it

    @property
    def step(self) -> float:
        """The median step, from the end of one to the end of the next, in seconds."""
        return statistics.median(self.steps)

    @property
    def save(self) -> float:
        """The median save, in seconds."""
        return statistics.median(self.saves)

    def hold(self, run: transformers.Trainer) -> None:
        """Time this training too."""
        plain, self._last = run._save_checkpoint, 0.0

        def timed(*args: Any, **kwargs: Any) -> None:
            if run.args.device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            plain(*args, **kwargs)
            self.saves.append(time.perf_counter() - started)
            self._last = 0.0

        run._save_checkpoint = timed  # type: ignore[method-assign]
        run.add_callback(self)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time since the step before."""
        now = time.perf_counter()
        if self._last:
            self.steps.append(now - self._last)
        self._last = now


def _even(prepared: Prepared) -> Prepared:
    """Return the training rows that are as long as the cut, and nothing to evaluate on."""
    train = prepared.encoded["train"]
    inputs = train.inputs.filter(lambda row: row["length"] == LENGTH)
    return replace(prepared, encoded={"train": replace(train, inputs=inputs)})


def _own(prepared: Prepared, folder: Path, saves: bool) -> Any:
    train = replace(prepared.recipe.train, output_dir=str(folder), **({} if saves else {"save_strategy": "no"}))
    prepared = replace(prepared, recipe=replace(prepared.recipe, train=train))
    transformers.set_seed(1)
    return build_trainer(prepared, *load_model(prepared.recipe, prepared.processor))


def _stock(prepared: Prepared, folder: Path) -> transformers.Trainer:
    ours = prepared.recipe.train
    names = ("max_steps", "save_steps", "learning_rate", "disable_tqdm", "logging_steps", "per_device_train_batch_size")
    args = transformers.TrainingArguments(
        output_dir=str(folder), save_strategy="steps", save_total_limit=2, report_to="none", use_cpu=ours.use_cpu,
        **{name: getattr(ours, name) for name in names},
    )  # fmt: skip
    transformers.set_seed(1)
    model, _ = load_model(prepared.recipe, prepared.processor)
    inputs = prepared.encoded["train"].inputs
    kept = [name for name in inputs.column_names if name in ("input_ids", "attention_mask", "token_type_ids")]
    label = "label" if "label" in inputs.column_names else "labels"
    inputs = inputs.select_columns([*kept, label])
    collate = transformers.DataCollatorWithPadding(prepared.processor)
    return transformers.Trainer(model=model, args=args, train_dataset=inputs, data_collator=collate)


def _timed(run: Any, steps: int) -> float:
    started = time.perf_counter()
    run.train()
    return (time.perf_counter() - started) / steps


if __name__ == "__main__":
    main()
