"""A run that is made of another without training: merged, combined, compressed. Its folder is like a trained run's."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.agreement import on_device
from finetune.errors import UserError
from finetune.evaluation.paired import paired_scores
from finetune.recording import examined, samples, seal, write_examination, write_samples
from finetune.rescoring import Rescored, rescored
from finetune.task import Score, Scores
from finetune.training.checkpoints import honour_umask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.recipe import Recipe
    from finetune.task import Examination, Processor

    Loaded = tuple[Recipe, PreTrainedModel, Processor]

ORIGINAL = "original"  # the score column of the run that another was made of
COPIED = (artefact.HISTORY, artefact.DATA)  # still true of a run that was made of this one


def derive(source: Path, output: Path, loaded: Loaded, origin: dict[str, Any]) -> Path:
    """Write the folder of a run that was made of another: saved, reloaded, scored on the same rows beside it.

    Args:
        source: the run that it was made of; its reference rows are asked, its scores stand beside the new ones.
        output: the new folder; nothing is written there unless all goes well.
        loaded: recipe (without what is no longer there, such as the adapter), model and processor.
        origin: for origin.json: {"made_by": verb, "of": [`fingerprint(run)`, …], …}.

    Raises:
        UserError: something lies at `output`.
        CheckFailed: what was saved does not come back as it was.
    """
    from finetune.environment import collect
    from finetune.evaluation.report import write_report
    from finetune.publishing.card import write_card

    recipe, model, processor = loaded
    with staged(output) as folder:
        artefact.write_status(folder, "unfinished", recipe.task.kind)
        recipe = _at(recipe, output)
        model.to(recipe.train.device).eval()  # type: ignore[arg-type]  # the stub of a decorated method
        for name in COPIED:
            if (source / name).exists():
                shutil.copyfile(source / name, folder / name)
        artefact.write_json(folder / artefact.ORIGIN, {**origin, "environment": collect()})
        _write_environment(source, folder, model)
        _score(source, folder, (recipe, model, processor))
        write_samples(folder, "after", samples(recipe, model, processor))
        model.save_pretrained(folder)
        honour_umask(folder)
        seal(folder, recipe, processor, _reference(source, recipe, model))
    write_report(output)
    write_card(output, recipe)
    return output


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Give a folder that becomes `output` when the block ends well, and is gone when it does not.

    Raises:
        UserError: something lies at `output`.
    """
    refuse_existing(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = output.with_name(f".{output.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
    folder.mkdir()
    try:
        yield folder
        if output.exists():  # an empty folder
            output.rmdir()
        os.replace(folder, output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(output: Path) -> None:
    """Refuse an output folder that holds something."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output: {output} is there already. Give another folder.")


def fingerprint(run: Path) -> dict[str, Any]:
    """Return what a run made of others says of each: its name, no path, and the digest of its weights."""
    return {"run": run.resolve().name, "weights": artefact.weights_digest(run)}


def _at(recipe: Recipe, output: Path) -> Recipe:
    train = copy.copy(recipe.train)
    train.output_dir = str(output)
    return replace(recipe, train=train)


def _write_environment(source: Path, folder: Path, model: PreTrainedModel) -> None:
    """Write where the weights were trained, which is what the source says, with the new number of parameters."""
    from finetune.models.quantized import weight_count

    facts = artefact.read_json(source / artefact.ENVIRONMENT)
    facts["parameters"] = weight_count(model)
    artefact.write_json(folder / artefact.ENVIRONMENT, facts)


def _reference(source: Path, recipe: Recipe, model: PreTrainedModel) -> dict[str, Any]:
    import torch

    with torch.no_grad():
        return artefact.reference(
            [batch for batch, _ in artefact.reference_batches(source)],
            lambda batch: recipe.task.logits(model, on_device(batch, model)),
        )


def _score(source: Path, folder: Path, loaded: Loaded) -> None:
    """Write scores, predictions and examination; say why where the rows are not there to be scored on."""
    recipe, model, processor = loaded
    try:
        found = rescored(recipe, model, processor, folder)
    except UserError as error:
        print(f"Not scored: {error}", flush=True)
        artefact.write_scores(folder, {}, {})
        return
    examination = examined(recipe, found.trainer.sampled_model(), processor, found.inputs)
    write_examination(folder, examination)
    if found.split == "test":
        table = recipe.task.predictions(found.answers, found.inputs["test"], found.rows)
        artefact.write_table(table, folder / artefact.PREDICTIONS)
    rivals = _rivals(source, found, examination)
    if ORIGINAL in rivals and (paired := paired_scores(folder, source, recipe.evaluate.resamples)):
        rivals[ORIGINAL] |= {name: score for name, score in paired.items() if name.endswith("_gap")}
    scores = {found.split: found.scores | examination.scores.get(found.split, {})}
    artefact.write_scores(folder, scores, rivals)


def _rivals(source: Path, found: Rescored, examination: Examination) -> dict[str, Scores]:
    """Return the scores of the original and of its rivals, where they are of the same rows, without its own gaps."""
    files = artefact.read_json(source / artefact.DATA)["fingerprints"]
    if any(files.get(file) != facts for file, facts in found.fingerprints.items()):
        return examination.baselines
    before = artefact.read_json(source / artefact.SCORES)
    tables = {ORIGINAL: before.get(found.split, {}), **before.get("baselines", {})}
    rivals = {
        rival: {name: Score(**each) for name, each in table.items() if not name.endswith("_gap")}
        for rival, table in tables.items()
    }
    return rivals | examination.baselines
