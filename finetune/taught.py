"""What a distilled run is held against on its test rows: its teacher, and the same student without one."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from finetune import artefact
from finetune.errors import UserError
from finetune.evaluation.paired import paired_scores
from finetune.rescoring import full_answers
from finetune.task import Score

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from finetune.data import Splits
    from finetune.preparation import Prepared
    from finetune.recipe import Recipe
    from finetune.task import Scores, Task
    from finetune.training.trainer import Trainer

    Answers = dict[str, np.ndarray]

ALONE = "task.distill.alone"


def check_alone(recipe: Recipe, splits: Splits) -> None:
    """Refuse, before training, a run of the student alone that could not be held against this one afterwards.

    Raises:
        UserError: it is no finished run of this task, or was not scored on these test rows.
    """
    options = getattr(recipe.task, "distill", None)
    if options is None or options.alone is None:
        return
    if recipe.data.test is None:
        raise UserError(f"{ALONE}: runs are held against each other on test rows; name data.test, or leave it out.")
    try:
        run = artefact.open_run(Path(options.alone))
    except UserError as error:
        raise UserError(f"{ALONE}: {error}") from None
    kind = artefact.read_json(run / artefact.STATUS)["task"]
    if kind != recipe.task.kind:
        raise UserError(f"{ALONE}: {run} is a run of {kind}, and this one of {recipe.task.kind}.")
    if not (run / artefact.PREDICTIONS).exists():
        raise UserError(f"{ALONE}: {run} has no {artefact.PREDICTIONS}; give a run that was scored on data.test.")
    known = {facts.get("sha256") for facts in artefact.read_json(run / artefact.DATA)["fingerprints"].values()}
    files = recipe.data.test if isinstance(recipe.data.test, list) else [recipe.data.test]
    for file in (str(getattr(each, "path", each)) for each in files):
        facts = splits.fingerprints.get(file, {})
        if "sha256" in facts and facts["sha256"] not in known:
            raise UserError(f"{ALONE}: {run} was not scored on {file}; give a run with the same data.test.")


def teacher_answers(prepared: Prepared, trainer: Trainer) -> tuple[Task, dict[str, Answers]] | None:
    """Return what the teacher answers to the splits but train, and the task as its own answers to validation settle it.

    None without a teacher, or without `evaluate.baselines`. Every process takes part.
    """
    recipe, teacher = prepared.recipe, trainer.teacher
    if teacher is None or not recipe.evaluate.baselines:
        return None
    task, inputs = recipe.task, {name: each.inputs for name, each in prepared.encoded.items() if name != "train"}
    judged = "test" if "test" in inputs else "validation"
    answers = {
        name: full_answers(trainer, each, prepared.processor, recipe.evaluate.generated, teacher.model)
        if name == judged
        else trainer.answers(each, lambda _, batch: task.answer(teacher.model, batch))
        for name, each in inputs.items()
    }
    with redirect_stdout(io.StringIO()):  # what is said of a threshold is said of the student
        return task.settled(answers, inputs), answers


def rivals(
    prepared: Prepared, answers: dict[str, Answers], taught: tuple[Task, dict[str, Answers]] | None
) -> dict[str, Scores]:
    """Return the scores of the teacher and of the student alone, each with this run's gaps to it, paired by rows.

    Args:
        prepared: of this run, with the task that it ends with.
        answers: of this run, by split.
        taught: what `teacher_answers` returned.
    """
    options = getattr(prepared.recipe.task, "distill", None)
    if not answers or options is None or not prepared.recipe.evaluate.baselines:
        return {}
    split = "test" if "test" in answers else "validation"
    recipe, inputs, rows = prepared.recipe, prepared.encoded[split].inputs, prepared.splits.rows[split]
    resamples, found = recipe.evaluate.resamples, {}
    with TemporaryDirectory() as aside:
        own = _written(Path(aside) / "own", recipe, recipe.task.predictions(answers[split], inputs, rows))
        if taught is not None:
            task, told = taught
            theirs = _written(Path(aside) / "teacher", recipe, task.predictions(told[split], inputs, rows))
            found["teacher"] = task.score(told[split], inputs, resamples) | _gaps(own, theirs, resamples)
        if options.alone is not None:
            alone = Path(options.alone)
            table = artefact.read_json(alone / artefact.SCORES)[split]
            gaps = _gaps(own, alone, resamples)
            if not gaps:
                print(f"Beware: {ALONE}: the rows of {alone} are not those of this run: no gaps are given.", flush=True)
            found["alone"] = {name: Score(**each) for name, each in table.items()} | gaps
    return found


def _written(folder: Path, recipe: Recipe, table: Dataset) -> Path:
    folder.mkdir()
    artefact.write_table(table, folder / artefact.PREDICTIONS)
    recipe.write(folder / artefact.RECIPE)
    return folder


def _gaps(own: Path, other: Path, resamples: int) -> Scores:
    paired = paired_scores(own, other, resamples) or {}
    return {name: score for name, score in paired.items() if name.endswith("_gap")}
