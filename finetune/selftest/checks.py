"""The checks: two ways of doing one thing, and by how much they differ."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import CheckFailed
from finetune.selftest.differences import apart, most, scores_apart, values_apart, weights_apart
from finetune.selftest.observing import Interrupted, Observed, observe, scores
from finetune.selftest.schedules import share
from finetune.selftest.shrinking import BATCH, Small

if TYPE_CHECKING:
    from finetune.preparation import Prepared

ROUNDING = 1e-4  # relative: sums of fp32 in another order
SCORES = 1e-5  # relative, of scores and answers
STEPS = 3  # between two checkpoints
BROKEN_OFF = 5  # step, from 0, before which the training is cut short
LIMIT = 300  # seconds for two processes to come up and train
PARTS = 4  # micro-batches of a step


class LeftOut(Exception):
    """A check has nothing to check here; says why."""


@dataclass(frozen=True)
class Found:
    """What a check measured: good where the difference is no more than the tolerance."""

    difference: float
    tolerance: float
    said: str


class Stage:
    """What several checks share: prepared rows, and trainings that are held against others."""

    def __init__(self, small: Small, folder: Path) -> None:
        self.small, self.folder = small, folder

    def prepared(self, which: str) -> Prepared:
        """Return the rows, inputs and tokenizer of the recipe, as it is ("own") or without what draws ("exact")."""
        from finetune.preparation import prepare
        from finetune.recipe import Recipe

        return prepare(Recipe.read(self.small.write(which, self.folder / f"{which}.yaml")))

    @cached_property
    def exact(self) -> Prepared:
        """The recipe with plain SGD and no dropout."""
        return self.prepared("exact")

    @cached_property
    def own(self) -> Prepared:
        """The recipe with its own optimiser, schedule and dropout."""
        return self.prepared("own")

    @cached_property
    def whole(self) -> Observed:
        """Steps of one batch each."""
        return observe(self.exact, output_dir=str(self.folder / "whole"))

    @cached_property
    def unbroken(self) -> Observed:
        """The recipe's own steps, with checkpoints on the way."""
        return observe(self.own, output_dir=str(self.folder / "unbroken"), save_strategy="steps", save_steps=STEPS)


def accumulation(stage: Stage) -> Found:
    """Steps of one batch = steps of accumulated parts."""
    parts = observe(
        stage.exact,
        output_dir=str(stage.folder / "parts"),
        per_device_train_batch_size=BATCH // PARTS,
        gradient_accumulation_steps=PARTS,
    )
    return Found(
        apart(parts.steps, stage.whole.steps),
        ROUNDING,
        f"loss and gradient norm of {len(parts.steps)} steps: {BATCH} rows, and {PARTS} times {BATCH // PARTS}",
    )


def processes(stage: Stage) -> Found:
    """Steps and scores of two processes = those of one."""
    recipe = stage.small.write("exact", stage.folder / "two.yaml")
    verdict = stage.folder / "two.json"
    options = [f"--train.per_device_train_batch_size={BATCH // 2}", f"--train.output_dir={stage.folder / 'two'}"]
    command = [sys.executable, "-m", "finetune", "observe_together", str(recipe), str(verdict), "--profile", "cpu"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"two processes were not done within {LIMIT} s") from None
    if done.returncode or not verdict.exists():
        lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["no message"]
        raise CheckFailed(f"two processes ended with {done.returncode}: {lines[-1]}")
    together = json.loads(verdict.read_text(encoding="utf-8"))
    if together["world"] != 2:
        raise CheckFailed(f"two processes were asked for, and an all-reduce counts {together['world']}")
    alone, _ = scores(stage.whole.trainer, stage.exact, BATCH)
    steps = apart([tuple(each) for each in together["steps"]], stage.whole.steps)
    told = scores_apart({name: tuple(each) for name, each in together["scores"].items()}, alone)
    return Found(
        max(steps, told),
        ROUNDING,
        f"loss, gradient norm and {len(alone)} scores: one process, and two (counted by an all-reduce)",
    )


def padding(stage: Stage) -> Found:
    """Scores and predictions of rows one by one = of rows padded to one another."""
    prepared, sizes = stage.exact, (1, 3, 16)
    inputs, rows = prepared.encoded["validation"].inputs, prepared.splits.rows["validation"]
    found = [scores(stage.whole.trainer, prepared, size) for size in sizes]
    tables = [prepared.recipe.task.predictions(answers, inputs, rows).to_dict() for _, answers in found]
    differences = [scores_apart(other, found[0][0]) for other, _ in found[1:]]
    differences += [values_apart(other[name], tables[0][name]) for other in tables[1:] for name in tables[0]]
    return Found(most(differences), SCORES, f"scores and predictions of {len(inputs)} inputs, {sizes} at a time")


def packing(stage: Stage) -> Found:
    """The loss of several texts in one input = of each by itself."""
    import torch

    task, processor = stage.exact.recipe.task, stage.exact.processor
    if not getattr(task, "pack", False):
        raise LeftOut(f"{task.kind} makes an input of one row here")
    model = stage.whole.trainer.model.eval()
    if task.kind == "masked-lm":  # what is hidden depends on the place: logits are compared, with nothing hidden
        from finetune.tasks.masked_lm import packing_gap

        return Found(packing_gap(task, model), ROUNDING, "logits of two texts in one input, and by themselves")  # type: ignore[arg-type]
    rows, collate = _short(task, stage.exact.splits.rows["train"]), task.collator(processor)
    together, several = _fitting(task, rows, processor)

    def loss(inputs: Any) -> tuple[float, float]:
        batch = collate([inputs[place] for place in range(len(inputs))])
        batch = {name: value for name, value in batch.items() if name not in ("index", "row", "row_id")}
        with torch.no_grad():
            return float(task.loss(model, batch)[0]), float(task.weight(batch))

    packed, separate = loss(together), [loss(each) for each in several]
    alone = tuple(sum(each[place] for each in separate) for place in (0, 1))
    return Found(
        apart([packed], [alone]), ROUNDING, f"loss and targets of {len(several)} texts in one input, and alone"
    )


def _short(task: Any, rows: Any) -> Any:
    """Return pieces of the texts of a language model, short enough for several to fit one input; else the rows."""
    if task.kind != "causal-lm":
        return rows
    from datasets import Dataset

    size = max(4, task.block_size // 4)  # characters: no more tokens than bytes
    texts = [piece for text in rows[task.text][:8] for piece in (text[:size], text[size : 2 * size]) if piece.strip()]
    return Dataset.from_dict({task.text: texts, "row_id": [f"text:{place}" for place in range(len(texts))]})


def _fitting(task: Any, rows: Any, processor: Any) -> tuple[Any, list[Any]]:
    """Return the first rows that fit one input together, encoded as such, and each encoded by itself."""
    taken, several = list[int](), list[Any]()
    for place in range(len(rows)):
        made = task.encode(rows.select([place]), processor, "truncate").inputs
        both = task.encode(rows.select([*taken, place]), processor, "truncate").inputs
        if len(made) == 1 and len(both) == 1:
            taken.append(place)
            several.append(made)
        if len(taken) == 3:
            break
    if len(taken) < 2:
        raise LeftOut("no two texts of these rows fit into one input")
    return task.encode(rows.select(taken), processor, "truncate").inputs, several


def evaluation(stage: Stage) -> Found:
    """Scores twice = once, from the saved run."""
    from finetune.reuse import evaluate

    run = stage.folder / "saved"
    _saved(stage)
    once, again = (next(iter(evaluate(run).values())) for _ in range(2))
    told = [{name: (float(each.value), each.n) for name, each in found.items()} for found in (once, again)]
    return Found(scores_apart(*told), 0.0, f"{len(once)} scores of the saved run, computed twice")


def reload(stage: Stage) -> Found:
    """The saved run = the trained model."""
    verdict = json.loads((_saved(stage) / "reload.json").read_text(encoding="utf-8"))
    return Found(float(verdict["max_difference"]), 1e-6, f"logits of {verdict['rows']} rows before and after saving")


def _saved(stage: Stage) -> Path:
    """Return a run of the recipe as `finetune train` leaves it, made once."""
    from finetune.recipe import Recipe
    from finetune.run import train

    run = stage.folder / "saved"
    if not (run / "reload.json").exists():
        recipe = Recipe.read(stage.small.write("own", stage.folder / "own.yaml"), {"train.output_dir": str(run)})
        train(recipe)
    return run


def resume(stage: Stage) -> Found:
    """A training that was cut short and goes on = an unbroken one, to the bit."""
    steps = len(stage.unbroken.losses)
    if steps <= BROKEN_OFF:
        raise LeftOut(f"{steps} steps are too few to break off")
    given: dict[str, Any] = {"output_dir": str(stage.folder / "broken"), "save_strategy": "steps", "save_steps": STEPS}
    try:
        observe(stage.own, until=BROKEN_OFF, **given)
    except Interrupted:
        pass
    else:
        raise CheckFailed(f"the training did not reach step {BROKEN_OFF}")
    again = observe(stage.own, resume=True, **given)
    difference = max(weights_apart(again, stage.unbroken), apart(again.steps, stage.unbroken.steps))
    return Found(difference, 0.0, f"weights, losses: broken off at step {BROKEN_OFF} of {steps}, gone on from {STEPS}")


def seed(stage: Stage) -> Found:
    """The same seed gives the same weights, and another one others."""
    first = stage.own.recipe.train.seed
    again = observe(stage.own, output_dir=str(stage.folder / "again"))
    other = observe(stage.own, output_dir=str(stage.folder / "other"), seed=first + 1, data_seed=first + 1)
    if not weights_apart(other, stage.unbroken) > 0:
        raise CheckFailed(f"seeds {first} and {first + 1} end with the same weights: the seed is not used")
    return Found(weights_apart(again, stage.unbroken), 0.0, f"weights with seed {first} twice; those of another differ")


def schedule(stage: Stage) -> Found:
    """The learning rates of the steps = those of the schedule's formula."""
    options, rates = stage.own.recipe.train, stage.unbroken.rates
    kind = getattr(options.lr_scheduler_type, "value", str(options.lr_scheduler_type))
    steps, given = len(rates), options.lr_scheduler_kwargs
    warmup = options.get_warmup_steps(steps)
    known = dict(given) if isinstance(given, dict) else {}
    expected = [share(kind, step, steps, warmup, options.learning_rate, known) for step in range(steps)]
    if None in expected:
        raise LeftOut(f"train.lr_scheduler_type {kind} has no formula here")
    pairs = ((rate, wanted) for groups, wanted in zip(rates, expected, strict=True) for rate in groups)
    difference = most(abs(rate - wanted) for rate, wanted in pairs if wanted is not None)
    return Found(difference, 1e-9, f"rates of {steps} steps, {kind} with {warmup} of warm-up")


CHECKS: tuple[Callable[[Stage], Found], ...] = (
    *(accumulation, processes, padding, packing, evaluation),
    *(resume, seed, schedule, reload),
)
