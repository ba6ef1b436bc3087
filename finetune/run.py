"""The line: rows → inputs → model → trainer → scores → saved run."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.novelty import examine_novelty
from finetune.opening import open_folder, refuse_occupied, refuse_own_sources
from finetune.preparation import Prepared, prepare
from finetune.publication import preflight, publish_trained
from finetune.recording import (
    examination,
    finish,
    record,
    reference,
    samples,
    trained_model,
    write_environment,
    write_history,
    write_samples,
)
from finetune.rescoring import full_answers
from finetune.task import Examination
from finetune.taught import rivals, teacher_answers

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.recipe import Recipe
    from finetune.training.trainer import Trainer


def train(recipe: Recipe, ready: Callable[[PreTrainedModel], None] | None = None) -> Path:
    """Train a recipe from rows to a saved, reloaded and scored run, and return the run's folder.

    A run that was cut short goes on from its last good checkpoint. `ready` is called with the model before it trains.
    With `train.seeds` there is a run for each of them, and the folder that is returned holds them all.

    Raises:
        UserError: the recipe, a file or the model is not right; nothing was written.
        CheckFailed: the run diverged, or what was saved does not come back as it was.
        EnvironmentFailed: disk, memory or network.
    """
    from finetune.training.checkpoints import disk

    if recipe.train.seeds is not None:
        from finetune.seeds import train_seeds

        if ready is not None:
            raise UserError("train.seeds trains each seed in a process of its own, where `ready` cannot be called.")
        return train_seeds(recipe)
    run = Path(str(recipe.train.output_dir))
    with disk(run):
        return _train(recipe, run, ready)


def _train(recipe: Recipe, run: Path, ready: Callable[[PreTrainedModel], None] | None) -> Path:
    from transformers import set_seed

    from finetune.training.ranks import wait_for_first
    from finetune.training.world import check_world

    started = time.monotonic()
    check_world(recipe.train)
    refuse_occupied(run, overwrite=recipe.train.overwrite)
    if recipe.train.overwrite:
        refuse_own_sources(recipe, run)
    recipe = preflight(recipe) if recipe.train.process_index == 0 else recipe
    prepared = prepare(recipe)
    recipe = prepared.recipe
    set_seed(recipe.train.seed)  # before the head is made, so that one seed gives one run
    model, new = load_model(recipe, prepared.processor)
    recipe.task.probe(model, prepared.processor)
    if ready is not None:
        ready(model)
    trainer = build_trainer(prepared, model, new)
    trainer.clock.begun = started
    main = trainer.is_world_process_zero()
    if main and trainer.halved and recipe.evaluate.precision == "float32":
        print("Beware: FSDP computes scores in half precision too; `finetune evaluate` does it in fp32.", flush=True)
    before = samples(recipe, model, prepared.processor)
    if main:
        open_folder(run, recipe)
        write_samples(run, "before", before)
    trainer.accelerator.wait_for_everyone()
    untuned = _untuned(prepared, trainer)
    trainer.train(resume_from_checkpoint=not recipe.train.overwrite)
    answers = _answers(prepared, trainer)
    taught = teacher_answers(prepared, trainer)
    settled = recipe.task.settled(answers, {name: prepared.encoded[name].inputs for name in answers})
    recipe = replace(recipe, task=settled)
    prepared = replace(prepared, recipe=recipe)
    trainer.save_model(str(run))
    # Every rank answers, for a model whose weights are sharded; the first writes.
    kept, after = reference(prepared, trainer), samples(recipe, trained_model(trainer), prepared.processor)
    inputs = {name: each.inputs for name, each in prepared.encoded.items()}
    told = examine_novelty(run, recipe, trainer, inputs, prepared.outliers)
    if main:
        told = told.joined(Examination(alarms=trainer.skipped.alarms()))
        beside = rivals(prepared, answers, taught)
        record(run, prepared, answers, examination(prepared, trained_model(trainer)).joined(told), untuned, beside)
        write_history(run, trainer)
        write_environment(run, prepared, trainer)
        write_samples(run, "after", after)
        trainer.let_go()
        finish(run, prepared, kept)
    wait_for_first(trainer.args.device)
    if main:  # the others need not wait for a network
        publish_trained(run, recipe)
    return run


def _untuned(prepared: Prepared, trainer: Trainer) -> dict[str, np.ndarray] | None:
    """Return what the weights that training starts from answer to the split that the run is judged on, if it is asked.

    A run that goes on from a checkpoint has those weights at this point too.
    """
    recipe, sharded = prepared.recipe, trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    judged = next((prepared.encoded[name].inputs for name in ("test", "validation") if name in prepared.encoded), None)
    asked = recipe.task.asks_untuned and recipe.evaluate.baselines and recipe.model.path is not None
    return None if judged is None or sharded or not asked else trainer.answers(judged)


def _answers(prepared: Prepared, trainer: Trainer) -> dict[str, dict[str, np.ndarray]]:
    """Return the answers to all splits but train; what a task writes, of the split that the run is judged on."""
    splits = {name: each.inputs for name, each in prepared.encoded.items() if name != "train"}
    judged = "test" if "test" in splits else "validation"
    most = prepared.recipe.evaluate.generated
    return {
        name: full_answers(trainer, inputs, prepared.processor, most) if name == judged else trainer.answers(inputs)
        for name, inputs in splits.items()
    }


def load_model(recipe: Recipe, processor: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, list[str]]:
    """Return the model of a recipe, with its adapter, and the names of its newly initialised parameters."""
    from finetune.adapters import attach
    from finetune.loading import announce
    from finetune.models.quantized import in_fewer_bits

    model, new = recipe.task.load_model(recipe.model, processor)
    announce(new)
    if in_fewer_bits(model.config):
        raise UserError(
            f"model.path: {recipe.model.path} is in fewer bits, which take no gradient: train the run it came from."
        )
    if recipe.adapter is None:
        return model, new
    return attach(model, recipe.adapter, new), new


def build_trainer(prepared: Prepared, model: PreTrainedModel, new: list[str]) -> Trainer:
    """Return the trainer of prepared inputs; its arguments are fitted to what there is to evaluate on."""
    from finetune.tasks import trainer_class
    from finetune.training.options import fitted_to
    from finetune.training.rehearsal import refuse_looks_at_shards, rehearse

    recipe, encoded = prepared.recipe, prepared.encoded
    task, trains = recipe.task, trainer_class(recipe.task)
    if recipe.train.dp is not None:
        from finetune.training.private import PrivateTrainer

        trains = PrivateTrainer
    args = fitted_to(recipe.train, "validation" in encoded, task.best_score, task.best_is_greatest)
    trainer = trains(
        task=task,
        model=model,
        args=args,
        train_inputs=encoded["train"].inputs if "train" in encoded else None,
        eval_inputs=encoded["validation"].inputs if "validation" in encoded else None,
        processor=prepared.processor,
        stamp=stamp(prepared, model),
        head_parameters=new,
        precision=recipe.evaluate.precision,
    )
    if "train" in encoded:
        refuse_looks_at_shards(trainer)
        if not trainer.is_deepspeed_enabled:  # its own file may name another optimiser
            rehearse(trainer)
    return trainer


def stamp(prepared: Prepared, model: PreTrainedModel) -> dict[str, Any]:
    """Return what of a recipe a resumed run must share with the run that it goes on with; the trainer adds its own.

    A checkpoint of an adapter holds no base, so what lies at the base's place has to be what lay there. The first
    process reads it through for all of them.
    """
    from finetune.foreign.adapters import origin
    from finetune.training import ranks

    recipe = prepared.recipe.to_dict()
    files = {file: facts.get("sha256", facts) for file, facts in prepared.splits.fingerprints.items()}
    held = {**{name: recipe.get(name) or {} for name in ("task", "model", "adapter", "data")}, "files": files}
    if "train" not in prepared.encoded:  # nothing will be resumed
        return held
    reader = "tokenizer" if hasattr(prepared.processor, "init_kwargs") else "image_processor"
    weights = ranks.all_said(origin(model) if ranks.rank() == 0 else None, prepared.recipe.train.device)[0]
    return {**held, "base": {"weights_sha256": weights, f"{reader}_sha256": prepared.reader}}
