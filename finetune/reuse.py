"""Using a run again: evaluate it on other rows, predict with it, draw from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import UserError
from finetune.recording import examined, write_examination
from finetune.reloading import load_run
from finetune.rescoring import rescored, trainer_for

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.task import Examination, Scores


def evaluate(run: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Scores]:
    """Score a run on its test split, or on another (`{"data.test": "other.csv"}`), and return {split: scores}.

    The scores of other rows than the run's own are written under evaluations/ in the run, with what else was found and
    drawn; the run's scores stay.
    """
    from finetune.tasks.extractor import check_networks

    artefact.open_run(run)
    recipe, model, processor = load_run(run, overrides)
    check_networks(recipe.evaluate)
    found = rescored(recipe, model, processor, run)
    scores = found.scores
    if found.trainer.is_world_process_zero():
        examination = examined(recipe, found.trainer.sampled_model(), processor, found.inputs)
        scores |= examination.scores.get(found.split, {})
        _write_evaluation(run, found.fingerprints, {found.split: scores}, examination)
    return {found.split: scores}


def _write_evaluation(run: Path, fingerprints: dict[str, Any], scores: dict[str, Scores], found: Examination) -> None:
    name = hashlib.sha256(repr(sorted(fingerprints.items())).encode()).hexdigest()[:12]
    folder = run / "evaluations"
    folder.mkdir(exist_ok=True)
    plain = {
        group: {name: {score: asdict(each) for score, each in held.items()} for name, held in tables.items()}
        for group, tables in (("scores", scores), ("baselines", found.baselines))
        if tables
    }
    artefact.write_json(folder / f"{name}.json", {"data": fingerprints, **plain})
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
    overrides: Mapping[str, Any] | None = None,
) -> list[str] | Path:
    """Draw from a run: return its texts, or the path of the images.

    Args:
        run: of a task that generates.
        count: how many (64 images, 8 texts), or how many walks to interpolate (8).
        seed: the same one draws the same.
        grid: the PNG of all images side by side; RUN/samples/sample.png where neither it nor `output` is given.
        output: for images a folder, a PNG each; for texts a .jsonl file, a row each.
        interpolate: walk from one drawn point of the latent space to another, 10 steps each.
        traverse: walk along each latent dimension, 10 steps each.
        overrides: of the recipe.

    Raises:
        UserError: the run generates nothing or has no latent space, or nothing can be written there.
    """
    from finetune.drawing import draw, write_images, write_texts

    artefact.open_run(run)
    if interpolate and traverse:
        raise UserError("--interpolate and --traverse exclude each other.")
    if count is not None and count < 1:
        raise UserError(f"--count is {count}; give 1 or more.")
    if traverse and count is not None:
        raise UserError("--count says nothing to --traverse: it walks along each of the first 10 latent dimensions.")
    recipe, model, processor = load_run(run, overrides)
    kind = "interpolate" if interpolate else "traverse" if traverse else "generate"
    model.to(recipe.train.device)  # type: ignore[arg-type]  # the stub of a decorated method
    drawn, columns = draw(recipe.task, model, processor, kind, count, seed)
    if isinstance(drawn, list):
        return write_texts(drawn, grid, output)
    return write_images(
        drawn,
        columns,
        grid,
        output,
        run / artefact.SAMPLES / ("sample.png" if kind == "generate" else f"sample-{kind}.png"),
    )


def predict(run: Path, file: Path, output: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Dataset:
    """Answer every row of a file; write the answers to `output` (.jsonl, .csv or .parquet) when it is given."""
    from finetune.data import read_rows

    artefact.open_run(run)
    if output is not None and output.suffix not in (".jsonl", ".csv", ".parquet"):
        raise UserError(f"--output: {output} should end in .jsonl, .csv or .parquet.")
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise UserError(f"--output: {output} cannot be written: {output.parent} is no folder, or {output.name} is one.")
    recipe, model, processor = load_run(run, overrides)
    columns = recipe.task.columns()
    if not columns.label_is_asked:  # answers need no labels: `evaluate` holds them against some
        columns = replace(columns, label=None)
    rows = read_rows(str(file), recipe.data, columns)
    # Every row gets an answer: what training would drop or refuse is cut here.
    on_long = "window" if recipe.data.on_long == "window" else "truncate"
    inputs = recipe.task.encode(rows, processor, on_long).inputs
    trainer = trainer_for(recipe, model, processor, run)
    table = recipe.task.predictions(trainer.answers(inputs), inputs, rows)
    if output is not None and trainer.is_world_process_zero():
        artefact.write_table(table, output)
    return table
