"""What a distilled run is held against on its test rows: its teacher, and the same student without one."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import UserError
from finetune.evaluation.paired import paired_scores
from finetune.rescoring import full_answers
from finetune.task import Score

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from datasets import Dataset

    from finetune.data import Splits
    from finetune.preparation import Prepared
    from finetune.recipe import Recipe
    from finetune.task import Scores, Task
    from finetune.training.trainer import Trainer

    Answers = dict[str, np.ndarray]

ALONE = "task.distill.alone"
DIFFERS = 2  # differences of two recipes that are named
SPARED = {  # what two runs of one student may differ in
    "task": {"distill", "threshold", "prompts", "sample_tokens"},
    "data": {"test", "max_test_rows", "cache_dir"},  # of test rows the files are compared, whatever they are called
    "train": {"seed", "data_seed"},
}
BEST = ("load_best_model_at_end", "eval_strategy", "eval_steps")  # which weights a run ends with


def check_alone(recipe: Recipe, splits: Splits) -> None:
    """Refuse, before training, a run of the student alone that could not be held against this one afterwards.

    Raises:
        UserError: it is no finished run of this task, was not scored on these test rows, had a teacher or is it, or
            its recipe makes another model, of other rows or in another way.
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
    _check_same_student(recipe, run, options.teacher, splits)


def _check_same_student(recipe: Recipe, run: Path, teacher: str, splits: Splits) -> None:
    """Refuse a run that differs from this one in more than the teacher: a gap to it would tell of the rest too."""
    if Path(teacher).exists() and Path(teacher).resolve() == run.resolve():
        raise UserError(f"{ALONE}: {run} is the teacher; give a run of the student, trained without one.")
    theirs = type(recipe).read(run / artefact.RECIPE)
    if getattr(theirs.task, "distill", None) is not None:
        raise UserError(f"{ALONE}: {run} was distilled itself; give a run of the student, trained without a teacher.")
    found = list(_differences(theirs.to_dict(), recipe.to_dict()))
    if found:
        raise UserError(f"{ALONE}: {run} is not this student alone: {'; '.join(found[:DIFFERS])}.")
    there = artefact.read_json(run / artefact.DATA)["fingerprints"]
    for file, facts in splits.fingerprints.items():
        if "sha256" in facts and there.get(file, facts).get("sha256") != facts["sha256"]:
            raise UserError(f"{ALONE}: {file} has changed since {run} was trained; train that one again.")


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    """Yield what two recipes say otherwise of the model, its rows, and how it is trained."""
    from finetune.training.option_tables import RESUME

    for section in ("model", "adapter", "task", "data", "train"):
        one, other = theirs.get(section) or {}, ours.get(section) or {}
        names = (*RESUME, *BEST) if section == "train" else dict.fromkeys((*one, *other))
        for name in names:
            there, here = one.get(name), other.get(name)
            if name not in SPARED.get(section, ()) and _place(there) != _place(here):
                yield f"{section}.{name} is {_shown(there)} there and {_shown(here)} here"


def _place(value: Any) -> Any:
    """Return a path that is there in one spelling, and any other value as it is."""
    if isinstance(value, list):
        return [_place(each) for each in value]
    there = isinstance(value, str) and value and "\0" not in value and len(value) < 250 and Path(value).exists()
    return str(Path(value).resolve()) if there else value


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value) if len(str(value)) <= 60 else f"{str(value)[:59]}…"


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
