"""Using a run again: evaluate it on other rows, predict with it, draw from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.data.options import Holdout
from finetune.errors import UserError
from finetune.novelty import (
    DEFAULT,
    examine_novelty,
    kept_novelty,
    looked,
    outlier_files,
    read_outliers,
    read_unlabelled,
    wanted,
    with_novelty,
)
from finetune.recording import examined, write_examination
from finetune.reloading import load_run
from finetune.rescoring import full_answers, rescored, trainer_for
from finetune.sparing import refuse_what_is_read

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from finetune.recipe import Recipe
    from finetune.task import Examination, Scores


NAMED_BY_FILES = ("data.test", "evaluate.outliers")  # options that the files which were read stand for


def evaluate(run: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Scores]:
    """Score a run on its test split, or on another (`{"data.test": "other.csv"}`), and return {split: scores}.

    The scores of other rows than the run's own are written under evaluations/ in the run, with what else was found and
    drawn; the run's scores stay.
    """
    from finetune.tasks.extractor import check_networks

    artefact.open_run(run)
    recipe, model, processor = load_run(run, overrides)
    check_networks(recipe.evaluate)
    outliers, kept = read_outliers(recipe, processor), (run / artefact.NOVELTY).exists()
    found = rescored(recipe, model, processor, run, fits=wanted(recipe) and not kept)
    scores = found.scores
    told = examine_novelty(run, recipe, found.trainer, found.inputs, outliers)
    if found.trainer.is_world_process_zero():
        examination = examined(recipe, found.trainer.sampled_model(), processor, found.inputs).joined(told)
        scores |= examination.scores.get(found.split, {})
        files, given = found.fingerprints | outlier_files(recipe), overrides or {}
        options = {name: str(value) for name, value in sorted(given.items()) if name not in NAMED_BY_FILES}
        _write_evaluation(run, files, options, {found.split: scores}, examination)
    return {found.split: scores}


def _write_evaluation(
    run: Path, fingerprints: dict[str, Any], options: dict[str, str], scores: dict[str, Scores], found: Examination
) -> None:
    """Write under a name that is made of the rows, and of the options where they are not the run's own."""
    given = {"overrides": options} if options else {}
    told = repr(sorted(fingerprints.items())) + "".join(map(repr, given.values()))
    name = hashlib.sha256(told.encode()).hexdigest()[:12]
    folder = run / "evaluations"
    folder.mkdir(exist_ok=True)
    plain = {
        group: {name: {score: asdict(each) for score, each in held.items()} for name, held in tables.items()}
        for group, tables in (("scores", scores), ("baselines", found.baselines))
        if tables
    }
    artefact.write_json(folder / f"{name}.json", {"data": fingerprints, **given, **plain})
    if found.pictures or found.facts or found.alarms:
        write_examination(folder / name, found)
    for rival, held in found.baselines.items():
        print(f"{rival}: " + ", ".join(f"{score} {each.value:.4g}" for score, each in held.items()), flush=True)


def sample(
    run: Path,
    count: int | None = None,
    seed: int = 13,
    grid: Path | None = None,
    output: Path | None = None,
    interpolate: bool = False,
    traverse: bool = False,
    class_: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[str] | Path:
    """Draw from a run: return its texts, or the path of the images.

    Args:
        run: of a task that generates.
        count: how many (64 images, 8 texts), or how many walks to interpolate (8).
        seed: the same one draws the same.
        grid: the PNG of all images side by side; RUN/samples/sample.png where neither it nor `output` is given.
        output: for images a folder, a PNG each, or an .npz file to train on; for texts a .jsonl file, a row each.
        interpolate: walk from one drawn point of the latent space to another, 10 steps each.
        traverse: walk along each latent dimension, 10 steps each.
        class_: the one class that is drawn, of a conditional run.
        overrides: of the recipe.

    Raises:
        UserError: the run generates nothing or has no latent space, or nothing can be written there.
    """
    from finetune.drawing import draw, write_arrays, write_images, write_texts

    artefact.open_run(run)
    if interpolate and traverse:
        raise UserError("--interpolate and --traverse exclude each other.")
    if count is not None and count < 1:
        raise UserError(f"--count is {count}; give 1 or more.")
    if traverse and count is not None:
        raise UserError("--count says nothing to --traverse: it walks along each of the first 10 latent dimensions.")
    arrays = output is not None and output.suffix == ".npz"
    for option, given in (("--class", class_ is not None), (f"--output {output}", arrays)):
        if given and (interpolate or traverse):
            raise UserError(f"{option} is for samples, and not for walks; leave --interpolate and --traverse out.")
    recipe, model, processor = load_run(run, overrides)
    kind = "interpolate" if interpolate else "traverse" if traverse else "generate"
    model.to(recipe.train.device)  # type: ignore[arg-type]  # the stub of a decorated method
    drawn, columns = draw(recipe.task, model, processor, kind, count, seed, class_)
    if isinstance(drawn, list):
        return write_texts(drawn, grid, output)
    if arrays and output is not None:
        labels = recipe.task.drawn_labels(len(drawn)) if class_ is None else [class_] * len(drawn)
        written = write_arrays(drawn, labels, recipe.task, _origin(run, recipe, seed), output)
        if grid is None:
            return written
        output = None
    return write_images(
        drawn,
        columns,
        grid,
        output,
        run / artefact.SAMPLES / ("sample.png" if kind == "generate" else f"sample-{kind}.png"),
    )


def _origin(run: Path, recipe: Recipe, seed: int) -> np.ndarray:
    """Return the mark of what a run generates: its name and the files that it was trained on."""
    from finetune.data.files import named_sources
    from finetune.data.generated import mark

    held = [recipe.data.test, None if isinstance(recipe.data.validation, Holdout) else recipe.data.validation]
    scored = [source.path for given in held if given is not None for source in named_sources(given, "test")]
    files = artefact.read_json(run / artefact.DATA)["fingerprints"]
    trained_on = {
        file: facts["sha256"]
        for file, facts in files.items()
        if "sha256" in facts and not any(file == path or fnmatch(file, path) for path in scored)
    }
    return mark(run.resolve().name, seed, trained_on)


def predict(run: Path, file: Path, output: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Dataset:
    """Answer every row of a file; write the answers to `output` (.jsonl, .csv or .parquet) when it is given."""
    artefact.open_run(run)
    refuse_unwritable(output, file)
    recipe, model, processor = load_run(run, overrides)
    rows = read_unlabelled(recipe, str(file))
    # Every row gets an answer: what training would drop or refuse is cut here.
    on_long = "window" if recipe.data.on_long == "window" else "truncate"
    encoded = recipe.task.encode_held(rows, processor, on_long)
    inputs = encoded.inputs
    if encoded.facts.get("dropped"):
        _refuse_unanswered(rows, inputs)
    trainer = trainer_for(recipe, model, processor, run)
    novelty = kept_novelty(run, recipe, asked="evaluate.novelty" in (overrides or {}))
    if novelty is None:
        answers = full_answers(trainer, inputs, processor)
    else:
        answers = trainer.answers(inputs, recipe.task.embed)
    table = recipe.task.predictions(answers, inputs, rows)
    if novelty is not None:
        table = with_novelty(table, novelty, looked(answers, inputs), recipe.evaluate.novelty or DEFAULT)
    if output is not None and trainer.is_world_process_zero():
        artefact.write_table(table, output)
    return table


def _refuse_unanswered(rows: Dataset, inputs: Dataset) -> None:
    """Refuse rows of which a task makes no input, however they are shortened: their answers would be missing."""
    answered = set(inputs["row"][:])
    lost = next((row_id for place, row_id in enumerate(rows["row_id"]) if place not in answered), rows["row_id"][0])
    raise UserError(f"{lost}: cannot be answered: it is too long to be cut, or has nothing to be asked; leave it out.")


def refuse_unwritable(output: Path | None, rows: Path) -> None:
    """Refuse a file for answers that has an unknown ending, no folder to lie in, or rows in it."""
    if output is not None and output.suffix not in (".jsonl", ".csv", ".parquet"):
        raise UserError(f"--output: {output} should end in .jsonl, .csv or .parquet.")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise UserError(f"--output: {output} cannot be written: {output.parent} is no folder, or {output.name} is one.")
    refuse_what_is_read("output", output, (), (rows,))
