"""What a run leaves: scores, baselines, predictions, samples, environment; and the check that it reloads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.evaluation.sameness import one_answer
from finetune.task import Examination, Picture

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.preparation import Prepared
    from finetune.recipe import Recipe
    from finetune.task import Processor, Scores
    from finetune.training.trainer import Trainer


def trained_model(trainer: Trainer) -> PreTrainedModel:
    """Return the model without what was wrapped around it for training, autocast among it."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def samples(recipe: Recipe, model: PreTrainedModel, processor: Processor) -> list[str] | Picture:
    """Return what the model generates; looking leaves the random numbers as they were."""
    import torch

    was_training = model.training
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(recipe.train.seed)
        found = recipe.task.sample(model, processor)
    model.train(was_training)
    return found


def write_samples(run: Path, name: str, found: list[str] | Picture) -> None:
    """Write generations into samples/NAME.txt or .png; a resumed run keeps those of the untouched model."""
    folder = run / artefact.SAMPLES
    if not found or (name == "before" and list(folder.glob("before.*"))):
        return
    folder.mkdir(exist_ok=True)
    if isinstance(found, Picture):
        artefact.write_picture(found, folder / f"{name}.png")
    else:
        artefact.write_text(folder / f"{name}.txt", "\n\n---\n\n".join(found) + "\n")


def examination(prepared: Prepared, model: PreTrainedModel) -> Examination:
    """Return what looking at the trained model as a whole tells."""
    inputs = {name: each.inputs for name, each in prepared.encoded.items()}
    return examined(prepared.recipe, model, prepared.processor, inputs)


def examined(recipe: Recipe, model: PreTrainedModel, processor: Processor, inputs: dict[str, Dataset]) -> Examination:
    """Return what looking at a model as a whole tells; looking leaves the random numbers as they were."""
    import torch

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(recipe.train.seed)
        return recipe.task.examine(model.eval(), inputs, processor, recipe.evaluate)


def record(
    run: Path,
    prepared: Prepared,
    answers: dict[str, dict[str, np.ndarray]],
    found: Examination,
    untuned: dict[str, np.ndarray] | None = None,
    beside: dict[str, Scores] | None = None,
) -> None:
    """Write scores, baselines, predictions of the test split, and what became of the data.

    Args:
        run, prepared, answers: by split.
        found: by looking at the model as a whole.
        untuned: answers of the model before training to the split that the run is judged on.
        beside: scores of other rivals on that split.
    """
    recipe, inputs = prepared.recipe, {name: each.inputs for name, each in prepared.encoded.items()}
    task, resamples = recipe.task, recipe.evaluate.resamples
    scores: dict[str, Scores] = {name: task.score(each, inputs[name], resamples) for name, each in answers.items()}
    for split, more in found.scores.items():
        scores[split] = scores.get(split, {}) | more
    rows = prepared.splits.rows
    held = "test" if "test" in answers else "validation"  # rivals are measured where the run's headline is
    if held in answers:
        table = task.predictions(answers[held], inputs[held], rows[held])
        found = found.joined(Examination(alarms=one_answer(table, recipe.train.dp is not None)))
        if held == "test":
            artefact.write_table(table, run / artefact.PREDICTIONS)
    write_examination(run, found)
    baselines: dict[str, Scores] = {}
    if recipe.evaluate.baselines and held in answers and "train" in rows:
        splits = {name: name for name in ("train", "validation") if name in rows and name != held} | {"test": held}
        baselines = task.baselines(
            {name: rows[split] for name, split in splits.items()},
            {name: inputs[split] for name, split in splits.items()},
            answers[held],
            prepared.processor,
            resamples,
        )
    if untuned is not None:
        baselines = {**baselines, "untuned": task.untuned(untuned, answers[held], inputs[held], resamples)}
    artefact.write_scores(run, scores, baselines | (beside or {}) | found.baselines)
    artefact.write_json(
        run / artefact.DATA,
        {
            "ledger": prepared.splits.ledger,
            "notes": prepared.splits.notes,
            "fingerprints": prepared.splits.fingerprints,
            "encoding": {name: each.facts for name, each in prepared.encoded.items()},
        },
    )


def write_examination(folder: Path, found: Examination) -> None:
    """Write the pictures into samples/ of a folder, and what else is known beside it; print the alarms."""
    for line in found.alarms:
        print(f"Beware: {line}", flush=True)
    if found.pictures:
        (folder / artefact.SAMPLES).mkdir(parents=True, exist_ok=True)
    for name, picture in found.pictures.items():
        artefact.write_picture(picture, folder / artefact.SAMPLES / f"{name}.png")
    if found.facts or found.alarms:
        folder.mkdir(exist_ok=True)
        artefact.write_json(folder / artefact.EXAMINATION, {"alarms": list(found.alarms), **found.facts})


def write_history(run: Path, trainer: Trainer) -> None:
    """Write the trainer's log as a list of plain records."""
    artefact.write_json(run / artefact.HISTORY, trainer.history)


def write_environment(run: Path, prepared: Prepared, trainer: Trainer) -> None:
    """Write where, with what and how long the run was made; the seconds are those of all starts: see `Clock`."""
    from finetune.environment import collect
    from finetune.foreign.adapters import origin
    from finetune.loading import resolved_revision
    from finetune.models.quantized import weight_count

    model = trained_model(trainer)
    facts = {
        **collect(),
        "device": str(trainer.args.device),
        "world_size": trainer.args.world_size,
        "precision": "bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else "fp32",
        "wall_time_s": round(trainer.clock.elapsed, 1),
        "training_time_s": round(trainer.clock.seconds, 1),
        "tokens_seen": trainer.state.num_input_tokens_seen if trainer.counts_tokens else None,
        "steps": trainer.state.global_step,
        "parameters": weight_count(model),
        "trainable_parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        "base_commit": resolved_revision(model),
        "base_weights": origin(model),
        "data": prepared.splits.fingerprints,
        **({"changes": list(trainer.changes)} if trainer.changes else {}),
    }
    if trainer.privacy is not None:
        facts["privacy"] = trainer.privacy
    artefact.write_json(run / artefact.ENVIRONMENT, facts)


def reference_inputs(prepared: Prepared) -> list[dict[str, Any]]:
    """Return batches of the first inputs of the last split there is, as the model takes them."""
    from finetune.training.batching import CARRIED

    inputs = list(prepared.encoded.values())[-1].inputs
    count = prepared.recipe.evaluate.reference_rows
    rows = inputs.select(range(min(count, len(inputs)))) if hasattr(inputs, "select") else list(inputs.take(count))
    collate = prepared.recipe.task.collator(prepared.processor)
    size = artefact.REFERENCE_BATCH
    parts = [
        [rows[place] for place in range(start, min(start + size, len(rows)))] for start in range(0, len(rows), size)
    ]
    return [{name: value for name, value in collate(part).items() if name not in CARRIED} for part in parts]


def reference(prepared: Prepared, trainer: Trainer) -> dict[str, Tensor]:
    """Return the reference rows with the trained model's answers; every rank takes part where weights are sharded."""
    import torch

    task, model = prepared.recipe.task, trained_model(trainer).eval()
    device = trainer.args.device
    with torch.no_grad():
        return artefact.reference(
            reference_inputs(prepared),
            lambda batch: task.logits(model, {name: each.to(device) for name, each in batch.items()}),
            trainer.halved,
        )


def finish(run: Path, prepared: Prepared, kept: dict[str, Tensor]) -> None:
    """Save what the run needs besides weights, reload it and compare, and write the report."""
    from finetune.evaluation.report import write_report
    from finetune.publishing.card import write_card

    _keep(run, prepared.recipe, prepared.processor, kept)
    write_card(run, prepared.recipe)
    write_report(run, "finished")  # as it is from the next line on: a run without its report is not finished
    artefact.write_status(run, "finished", prepared.recipe.task.kind)


def seal(run: Path, recipe: Recipe, processor: Processor, kept: dict[str, Tensor]) -> None:
    """Save what a run needs besides weights, reload it and compare it with its reference rows; then it is finished."""
    _keep(run, recipe, processor, kept)
    artefact.write_status(run, "finished", recipe.task.kind)


def _keep(run: Path, recipe: Recipe, processor: Processor, kept: dict[str, Tensor]) -> None:
    from finetune.reloading import compare_reloaded

    processor.save_pretrained(run)
    if labels := getattr(recipe.task, "labels", None):
        artefact.write_json(run / artefact.LABELS, list(labels))
    artefact.write_reference(run, kept)
    recipe.write(run / artefact.RECIPE)
    if recipe.evaluate.reload == "fresh":
        artefact.verify(run)
    else:
        compare_reloaded(run, "same", {"train.use_cpu": recipe.train.use_cpu})  # where it was trained
