"""The checks: two ways of doing one thing, and by how much they differ."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune import artefact
from finetune.errors import CheckFailed, EnvironmentFailed
from finetune.selftest.differences import apart, files_apart, most, scores_apart, values_apart, weights_apart
from finetune.selftest.observing import Interrupted, draws, observe, scores
from finetune.selftest.packed import packing
from finetune.selftest.schedules import share
from finetune.selftest.shrinking import BATCH
from finetune.selftest.stage import ROUNDING, STEPS, Found, LeftOut, Stage

SCORES = 1e-5  # relative, of scores and answers
BROKEN_OFF = 5  # step, from 0, before which the training is cut short
LIMIT = 300  # seconds for two processes to come up and train
PARTS = 4  # micro-batches of a step
SAID_BY = r"^finetune( \(rank \d+\))?: "  # before the line that ends a command


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
        if done.returncode == EnvironmentFailed.exit_code:
            raise EnvironmentFailed(f"two processes: {re.sub(SAID_BY, '', lines[-1])}")
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


def evaluation(stage: Stage) -> Found:
    """Scores of the saved run, twice = once = those that it was given when it was trained."""
    from finetune.reuse import evaluate

    run = _saved(stage)
    as_trained = {"train.use_cpu": True, "train.bf16": False}  # a run does not keep what its machine decided
    found = [evaluate(run, as_trained) for _ in range(2)]
    (split, once), again = next(iter(found[0].items())), next(iter(found[1].values()))
    written = artefact.read_json(run / artefact.SCORES)[split]
    kept = {name: (float(each["value"]), each["n"]) for name, each in written.items() if name in once}
    told = [{name: (float(each.value), each.n) for name, each in scored.items()} for scored in (once, again)]
    difference = most(scores_apart(told[0], other) for other in (told[1], kept))
    return Found(difference, 0.0, f"{len(once)} scores of the saved run: computed twice, and when it was trained")


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
    _refuse_private(stage)
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
    again = observe(stage.prepared("own"), resume=True, **given)
    difference = max(weights_apart(again, stage.unbroken), apart(again.steps, stage.unbroken.steps))
    unlike = files_apart(again.trainer.checkpoints, stage.unbroken.trainer.checkpoints)
    if unlike and not difference:
        raise CheckFailed(f"weights and losses are the same, and the last checkpoints differ in {', '.join(unlike)}")
    said = f"weights, losses, last checkpoint: broken off at step {BROKEN_OFF} of {steps}, gone on from {STEPS}"
    return Found(difference, 0.0, said)


def seed(stage: Stage) -> Found:
    """The same seed gives the same weights, and another one others."""
    from finetune.training.limits import SEEDS

    _refuse_private(stage)
    first = stage.own.recipe.train.seed
    second = (first + 1) % SEEDS
    again = observe(stage.own, output_dir=str(stage.folder / "again"))
    other = observe(stage.own, output_dir=str(stage.folder / "other"), seed=second, data_seed=second)
    differs = weights_apart(other, stage.unbroken) > 0
    if not differs and draws(other.trainer):
        raise CheckFailed(f"seeds {first} and {second} end with the same weights: the seed is not used")
    of_other = "those of another differ" if differs else "another has the same: nothing is drawn"
    said = f"weights with seed {first} twice; {of_other}"
    return Found(weights_apart(again, stage.unbroken), 0.0, said)


def _refuse_private(stage: Stage) -> None:
    if stage.own.recipe.train.dp is not None:
        raise LeftOut("train.dp draws rows and noise from the system's entropy: no training is like another")


def schedule(stage: Stage) -> Found:
    """The learning rates of the steps = those of the schedule's formula."""
    options, rates = stage.own.recipe.train, stage.unbroken.rates
    kind = getattr(options.lr_scheduler_type, "value", str(options.lr_scheduler_type))
    steps, given = len(rates), options.lr_scheduler_kwargs
    warmup = options.get_warmup_steps(steps)
    if not any(rates):
        raise LeftOut("no rate is above 0")
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
