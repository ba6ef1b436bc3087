"""`finetune audit`: train a recipe with canaries among its rows, or look at a finished run; say what leaks."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune import artefact
from finetune.auditing import canaries as planting
from finetune.auditing import exposure, membership
from finetune.auditing.page import write_page
from finetune.auditing.sides import held_out, sides_of
from finetune.auditing.verdict import verdict
from finetune.deriving import refuse_existing, staged
from finetune.errors import DISCARDED, CheckFailed, Stopped, UserError
from finetune.publishing.audited import audited, trained_as
from finetune.training import nonfinite

if TYPE_CHECKING:
    from finetune.recipe import Recipe

RESAMPLES = 1000
CANARIES = 20
LEAST_CANARIES = 5


def audit(
    recipe_or_run: Path,
    output: Path | None = None,
    canaries: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Measure what a model keeps of its rows; return the folder with audit.json, audit.png and audit.html.

    The card of the finished run beside which that folder lies gets a part about it.

    A recipe is trained once, in a folder that is gone afterwards, with `canaries` secrets (20) for each number of times
    that they stand in the rows (of tasks that learn to write), and rows are told from held-out ones by their loss. Of a
    finished run only the second is asked.

    Raises:
        UserError: there are no held-out rows, the task has no loss of a row, or the folder is there already.
        Stopped: by a signal, and nothing is kept.
        CheckFailed: the training diverged; its rows are kept beside the folder.
    """
    from finetune.recipe import Recipe

    if canaries is not None and canaries < LEAST_CANARIES:
        raise UserError(f"--canaries is {canaries}; give {LEAST_CANARIES} or more: an interval is over them.")
    of_run = recipe_or_run.is_dir()
    if of_run:
        artefact.open_run(recipe_or_run)
    recipe = Recipe.read(recipe_or_run / artefact.RECIPE if of_run else recipe_or_run, overrides)
    _refuse(recipe)
    if canaries is not None and (why := _without_canaries(recipe, of_run)):
        raise UserError(f"--canaries: {why}; leave it out.")
    run = recipe_or_run if of_run else Path(str(recipe.train.output_dir))
    folder = output or artefact.audit_beside(run)
    refuse_existing(folder)
    with staged(folder) as stage:
        recipe = _apart(recipe, stage / "training")
        with _going(stage / "training", folder):
            found = _of_run(recipe_or_run, recipe, overrides) if of_run else _of_recipe(recipe, canaries or CANARIES)
        shutil.rmtree(stage / "training", ignore_errors=True)  # what it learned by heart is not kept
        found = {"verdict": verdict(found), "of": recipe_or_run.resolve().name, "task": recipe.task.kind, **found}
        artefact.write_json(stage / artefact.AUDIT, found)
        write_page(stage, found)
    _tell_card(run, folder)
    return folder


def _tell_card(run: Path, folder: Path) -> None:
    """Make the card of a run anew, if it has a part for the audit in a folder: if that is beside it, and of it."""
    from finetune.publishing.card import write_card
    from finetune.recipe import Recipe

    if folder.resolve() != artefact.audit_beside(run).resolve() or artefact.status(run) != "finished":
        return
    recipe = Recipe.read(run / artefact.RECIPE)
    if audited(run, recipe) is not None:
        write_card(run, recipe)


def shown(folder: Path) -> str:
    """Return the verdict of an audit, its numbers, and where its page lies."""
    found = artefact.read_json(folder / artefact.AUDIT)
    lines = []
    for times, each in found.get("canaries", {}).items():
        name = "never" if times == "0" else f"{times} time{'s' if times != '1' else ''}"
        lines.append(
            f"  secrets seen {name:<9} exposure {each['exposure']:5.2f} [{each['low']:.2f}, {each['high']:.2f}] of "
            f"{exposure.MOST:.2f}, {each['first']:.0%} ranked first"
        )
    for name, each in found["membership"].items():
        lines.append(f"  {name:<36} AUC {each['auc']:.3f} [{each['low']:.3f}, {each['high']:.3f}]")
    return "\n".join([*lines, *found["verdict"], f"page: {folder / 'audit.html'}"])


def _refuse(recipe: Recipe) -> None:
    from finetune.task import Task

    if recipe.task.trainer != Task.trainer:
        raise UserError(f"audit: task.kind {recipe.task.kind} has no loss of a single row to tell rows by.")
    if recipe.data.streaming:
        raise UserError("audit: data.streaming reads rows once, and they are needed again; leave it out.")
    if recipe.data.test is None and recipe.data.validation is None:
        raise UserError("audit: rows that were not trained on are needed: name data.validation or data.test.")
    if recipe.train.seeds is not None:
        raise UserError(
            "audit: train.seeds makes several runs, and an audit is of one: leave it out, or audit the run of a seed."
        )
    if recipe.train.world_size > 1:
        raise UserError("audit: it runs in one process; start it without a launcher.")


def _without_canaries(recipe: Recipe, of_run: bool) -> str:
    return "a finished run is trained, and no secret can be planted" if of_run else planting.not_planted(recipe.task)


def _apart(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with a folder of the audit's own, and without trackers, publishing and a limit of time.

    Where the validation rows are those that are held out, they do not choose the checkpoint.
    """
    train = copy.copy(recipe.train)
    train.output_dir, train.report_to, train.max_hours = str(folder), [], None
    if recipe.data.test is None:
        train.load_best_model_at_end, train.automatic = False, train.automatic - {"load_best_model_at_end"}
    return replace(recipe, train=train, publish=None)


@contextmanager
def _going(training: Path, folder: Path) -> Iterator[None]:
    """Say of a training whose folder goes with the audit that nothing is kept, but for the rows it diverged by."""
    try:
        yield
    except Stopped as error:
        cause = str(error).partition(" after step ")[0]
        raise Stopped(f"audit: {cause}; {DISCARDED}") from None
    except CheckFailed as error:
        rows, kept = training / nonfinite.FILE, folder.with_name(f"{folder.name}-{nonfinite.FILE}")
        if not rows.exists():
            raise
        shutil.move(rows, kept)
        raise CheckFailed(str(error).replace(str(rows), str(kept))) from error


def _of_recipe(recipe: Recipe, each: int) -> dict[str, Any]:
    """Train with canaries; return what they and the losses tell."""
    from transformers import set_seed

    from finetune.foreign.adapters import origin
    from finetune.preparation import prepare
    from finetune.recording import trained_model
    from finetune.rescoring import trainer_for
    from finetune.run import build_trainer, load_model

    prepared = prepare(recipe)
    recipe, processor = prepared.recipe, prepared.processor
    folder, seed = Path(str(recipe.train.output_dir)), recipe.train.seed
    rows = prepared.splits.rows["train"]
    sides = sides_of(recipe, processor, prepared.splits.rows)
    planted: list[planting.Canary] = []
    facts: dict[str, Any] = {"seed": seed, "rows": len(rows), **held_out(recipe, sides)}
    facts["trained_as"] = trained_as(recipe, prepared.splits.fingerprints)
    if why := planting.not_planted(recipe.task):
        print(f"audit: no secrets are planted: {why}. Rows are told by their loss.", flush=True)
    else:
        text = recipe.task.columns().texts[0]
        planted = planting.made(processor, rows[text], each, seed)
        with_canaries = planting.planted(rows, recipe.task, planted, seed)
        facts["planted"] = len(with_canaries) - len(rows)
        encoded = recipe.task.encode(with_canaries, processor, recipe.data.on_long)
        prepared = replace(prepared, encoded={**prepared.encoded, "train": encoded})
        questions = exposure.asked(recipe, processor, rows, planted)
        print(
            f"audit: {facts['planted']} rows with secrets among {len(rows):,} training rows, {each} secrets for each "
            f"of {', '.join(map(str, planting.TIMES[1:]))} times.",
            flush=True,
        )
    set_seed(seed)
    model, new = load_model(recipe, processor)
    facts["base"] = origin(model)
    recipe.task.probe(model, processor)
    trainer = build_trainer(prepared, model, new)
    alone = replace(recipe, task=exposure.unpacked(recipe.task))
    before = sides.losses(trainer_for(alone, model, processor, folder)) if recipe.model.path is not None else None
    trainer.discarded = folder.parent  # the stage, planted rows among it
    trainer.train()
    trained = trained_model(trainer)
    after = sides.losses(trainer_for(alone, trained, processor, folder))
    found: dict[str, Any] = {"facts": facts}
    found["membership"] = membership.attacks(*after, before, RESAMPLES, seed, sides.documents)
    found["losses"] = _plain(sides.split, after)
    if planted:
        bits = exposure.exposures(recipe, trained, processor, questions, folder)
        found["canaries"] = exposure.summary(bits, planted)
        facts |= {"chance": exposure.CHANCE, "most": exposure.MOST}
        found["control_holds"] = exposure.control_holds(bits, planted)
    return found


def _of_run(run: Path, recipe: Recipe, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the losses of a finished run tell."""
    from transformers import set_seed

    from finetune.reloading import load_run
    from finetune.rescoring import trainer_for
    from finetune.rewriting import load_rows
    from finetune.run import load_model

    own, model, processor = load_run(run, overrides)
    held = "test" if recipe.data.test is not None else "validation"
    splits = load_rows(recipe, ("train", held))
    sides = sides_of(recipe, processor, splits.rows)
    folder, alone = Path(str(recipe.train.output_dir)), replace(recipe, task=exposure.unpacked(recipe.task))
    after = sides.losses(trainer_for(alone, model, processor, folder))
    before = None
    if recipe.model.path is not None:
        set_seed(recipe.train.seed)
        untrained, _ = load_model(recipe, processor)
        before = sides.losses(trainer_for(alone, untrained, processor, folder))
    facts = {"seed": recipe.train.seed, "rows": len(splits.rows["train"]), **held_out(own, sides)}
    facts |= {"trained_as": trained_as(recipe, splits.fingerprints), "weights": artefact.weights_digest(run)}
    attacks = membership.attacks(*after, before, RESAMPLES, recipe.train.seed, sides.documents)
    return {"facts": facts, "membership": attacks, "losses": _plain(sides.split, after)}


def _plain(split: str, found: tuple[np.ndarray, np.ndarray]) -> dict[str, list[float]]:
    return {"trained on": found[0].tolist(), split: found[1].tolist()}
