"""How new rows are to a trained classifier: fitted on its training rows, measured on outliers, kept with the run."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import UserError
from finetune.task import Examination

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from finetune.evaluation.novelty import Looked, Novelty
    from finetune.recipe import Recipe
    from finetune.task import Answers, Processor, Task
    from finetune.training.trainer import Trainer

TABLES, FACTS = "tables.safetensors", "novelty.json"
DEFAULT = "vae"
MOST_ROWS = 20_000  # training rows that are looked at
OPTION = "evaluate.outliers"


def read_unlabelled(recipe: Recipe, file: str, option: str = "") -> Dataset:
    """Return the checked rows of a file, a glob or a folder, to be answered: without labels, unless the model asks.

    Messages call the file by `option`, or by its name alone.
    """
    try:
        return _read_unlabelled(recipe, file)
    except UserError as error:
        said = str(error)
        raise UserError(said.replace("data.test", option) if option else said.removeprefix("data.test: ")) from None


def _read_unlabelled(recipe: Recipe, file: str) -> Dataset:
    from finetune.data import read_rows

    columns = recipe.task.columns()
    if columns.label_is_asked:
        return read_rows(file, recipe.data, columns)
    answers = (columns.label, columns.target)
    named = {ours: theirs for ours, theirs in recipe.data.columns.items() if ours not in answers}
    return read_rows(file, replace(recipe.data, columns=named), replace(columns, label=None, target=None))


def read_outliers(recipe: Recipe, processor: Processor) -> Dataset | None:
    """Return the inputs of `evaluate.outliers`, or None where there are none.

    Raises:
        UserError: a file is missing or malformed, or rows have several labels, or none but a number.
    """
    from datasets import concatenate_datasets

    given = recipe.evaluate.outliers
    if given is not None or recipe.evaluate.novelty is not None:
        check_single(recipe.task)
    if given is None:
        return None
    files = [given] if isinstance(given, str) else given
    rows = concatenate_datasets([read_unlabelled(recipe, file, OPTION) for file in files])
    return recipe.task.encode(rows, processor, recipe.data.on_long).inputs


def check_single(task: Task) -> None:
    """Raise UserError for a task whose rows have anything but one label each."""
    if getattr(task, "problem", "single") not in ("single", None):
        what = "a number" if getattr(task, "problem", None) == "regression" else "any number of labels"
        raise UserError(f"{OPTION}, evaluate.novelty: rows must have one label each, and these have {what}.")


def wanted(recipe: Recipe) -> bool:
    """Say whether a recipe asks how new rows are."""
    return recipe.evaluate.outliers is not None or recipe.evaluate.novelty is not None


def outlier_files(recipe: Recipe) -> dict[str, Any]:
    """Return the fingerprint of each file of outliers."""
    from finetune.data.files import fingerprint

    given = recipe.evaluate.outliers
    files = [given] if isinstance(given, str) else given or []
    return {file: fingerprint(file) if Path(file).exists() else {} for file in files}


def examine_novelty(
    run: Path, recipe: Recipe, trainer: Trainer, inputs: dict[str, Dataset], outliers: Dataset | None
) -> Examination:
    """Fit detectors, keep them with the run, and measure them on outliers. Every process takes part.

    Args:
        run: the folder, where detectors that are kept already are used as they are.
        recipe, trainer: of the classifier.
        inputs: train, unless detectors are kept; the splits that are held out, of which the last has the usual rows.
        outliers: inputs of another kind, or None to fit alone.
    """
    if not wanted(recipe):
        return Examination()
    novelty = load(run)
    if novelty is None:
        novelty = learn(recipe.task, trainer, inputs)
        if novelty is not None:
            save(novelty, run)
            rows = novelty.facts["fitted_rows"]
            print(f"novelty: fitted on {rows:,} training rows; kept in {run / artefact.NOVELTY}", flush=True)
    if outliers is None:
        return Examination(facts={} if novelty is None else {"novelty": novelty.facts})
    split = next(name for name in ("test", "validation") if name in inputs)
    usual, theirs = (look(recipe.task, trainer, each) for each in (inputs[split], outliers))
    if novelty is None or not trainer.is_world_process_zero():
        return Examination()
    found = measure(recipe, novelty, usual, theirs, split)
    alarms = shared_rows(inputs, outliers)
    facts = {"novelty": found.facts["novelty"] | {"files": outlier_files(recipe)}}
    return replace(found, facts=facts, alarms=alarms + found.alarms)


def shared_rows(inputs: dict[str, Dataset], outliers: Dataset) -> tuple[str, ...]:
    """Return a sentence for each split that has some of the outliers among its rows."""
    key = "image" if "image" in outliers.column_names else "input_ids"
    theirs = [str(each) for each in outliers[key][:]]
    found = {name: set(theirs) & {str(each) for each in rows[key][:]} for name, rows in inputs.items()}
    counts = {name: sum(each in shared for each in theirs) for name, shared in found.items() if shared}
    return tuple(
        f"{count:,} of {len(theirs):,} outliers are rows of {name} as well: they are no outliers."
        for name, count in counts.items()
    )


def look(task: Task, trainer: Trainer, inputs: Dataset) -> Looked:
    """Return what the classifier makes of each row. Every process takes part."""
    return looked(trainer.answers(inputs, task.embed), inputs)


def looked(found: Answers, inputs: Dataset) -> Looked:
    """Return what `Task.embed` said of inputs, by row: the mean over a row's windows."""
    from finetune.evaluation.novelty import Looked
    from finetune.tasks.labels import by_row

    return Looked(*(by_row(found[name], inputs)[0].astype("float32") for name in ("embedding", "logits")))


def learn(task: Task, trainer: Trainer, inputs: dict[str, Dataset]) -> Novelty | None:
    """Return the detectors, fitted to what the classifier makes of its training rows; None on all processes but one.

    Args:
        task, trainer: of the classifier.
        inputs: train, and validation where there is one.
    """
    import numpy as np

    from finetune.evaluation.novelty import LEAST_ROWS, fit

    train = inputs["train"]
    if len(train) < LEAST_ROWS:
        raise UserError(f"{OPTION}, evaluate.novelty: {len(train)} training rows are too few; give {LEAST_ROWS}.")
    if len(train) > MOST_ROWS:
        chosen = np.random.default_rng(trainer.args.seed).permutation(len(train))[:MOST_ROWS]
        train = train.select(np.sort(chosen))
    seen = look(task, trainer, train)
    unseen = look(task, trainer, inputs["validation"]) if "validation" in inputs else None
    if not trainer.is_world_process_zero():
        return None
    return fit(seen, _targets(task, train), unseen, trainer.args.seed)


def _targets(task: Task, inputs: Dataset) -> np.ndarray:
    """Return the class of each row, in the order of `by_row`."""
    import numpy as np

    from finetune.tasks.labels import by_row

    labels = np.asarray(inputs[task.targets][:])
    return labels[by_row(labels[:, None], inputs)[1]]


def measure(recipe: Recipe, novelty: Novelty, usual: Looked, outliers: Looked, split: str) -> Examination:
    """Return how well outliers are told from the rows of a split: the chosen detector's AUROC, and its rivals'."""
    from finetune.evaluation import novelty as detectors
    from finetune.evaluation.novelty_picture import picture

    told = recipe.evaluate.novelty or DEFAULT
    ours, theirs = novelty.scores(usual), novelty.scores(outliers)
    own, rivals = detectors.novelty_scores(ours, theirs, told, recipe.evaluate.resamples)
    facts = {"told_by": told, "outliers": len(theirs[told]), "against": f"{len(ours[told])} rows of {split}"}
    facts |= {"share_of_them_above_95_of_100": round(float((novelty.shares(told, theirs[told]) > 0.95).mean()), 4)}
    alarm = detectors.beaten(told, own, rivals)
    return Examination(
        {split: own},
        rivals,
        {"novelty": picture(novelty, ours, theirs, told)},
        {"novelty": facts | novelty.facts},
        () if alarm is None else (alarm,),
    )


def save(novelty: Novelty, run: Path) -> None:
    """Write the detectors into the folder novelty/ of a run, whole or not at all; another one there is replaced."""
    import torch
    from safetensors.torch import save as as_bytes

    staged, folder = run / f".{artefact.NOVELTY}.tmp", run / artefact.NOVELTY
    for old in (staged, folder):
        shutil.rmtree(old, ignore_errors=True)
    staged.mkdir()
    novelty.vae.save_pretrained(staged)
    parts = novelty.tables | {f"known.{name}": each for name, each in novelty.known.items()}
    tensors = {name: torch.from_numpy(each).contiguous() for name, each in parts.items()}
    (staged / TABLES).write_bytes(as_bytes(tensors))
    artefact.write_json(staged / FACTS, novelty.facts)
    os.replace(staged, folder)


def load(run: Path) -> Novelty | None:
    """Return what `save` wrote, or None where a run has none. UserError where the folder is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    from finetune.evaluation.novelty import Novelty
    from finetune.models.vector_vae import VectorVAE

    folder = run / artefact.NOVELTY
    if not folder.is_dir():
        return None
    facts = artefact.read_json(folder / FACTS)
    try:
        vae = VectorVAE.from_pretrained(folder, use_safetensors=True).eval()
        parts = {name: each.numpy() for name, each in from_bytes((folder / TABLES).read_bytes()).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be read ({str(error).splitlines()[0]}); the run is damaged.") from None
    known = {name.removeprefix("known."): each for name, each in parts.items() if name.startswith("known.")}
    return Novelty(vae, {name: each for name, each in parts.items() if not name.startswith("known.")}, known, facts)


def kept_novelty(run: Path, recipe: Recipe, asked: bool) -> Novelty | None:
    """Return the detectors of a run, or None where it has none, which is said if its recipe speaks of them.

    A published run comes without: they hold what the classifier makes of each training row.

    Raises:
        UserError: there are none, and this call asked for them.
    """
    found = load(run)
    if found is not None or not wanted(recipe):
        return found
    told = recipe.evaluate.novelty or DEFAULT
    missing = f"{run} has no {artefact.NOVELTY}/; finetune evaluate {run} --evaluate.novelty {told} makes it from the "
    if asked:
        raise UserError(f"evaluate.novelty: {missing}training rows.")
    print(f"No column novelty: {missing}training rows.", flush=True)
    return None


def with_novelty(table: Dataset, novelty: Novelty, seen: Looked, detector: str) -> Dataset:
    """Return a table of predictions with `novelty`: the share of usual rows that are less new than this one."""
    shares = novelty.shares(detector, novelty.scores(seen)[detector])
    named: Any = table.add_column("novelty", shares.tolist())
    return named
