"""Several runs of one task answer together: the mean of their probabilities, or a vote, and how far they agree."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import UserError, did_you_mean
from finetune.reuse import predict as predict_alone
from finetune.reuse import refuse_unwritable

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from finetune.recipe import Recipe

WAYS = ("mean", "vote")
KINDS = ("text-classification", "image-classification")  # tasks that give a whole row one answer
ASKED = ("row_id", "text", "pair", "target")  # columns of what was asked; all others are what a run said


def predict(
    runs: Sequence[Path],
    file: Path,
    output: Path | None = None,
    combine: str = "mean",
    overrides: Mapping[str, Any] | None = None,
) -> Dataset:
    """Answer every row of a file with several runs together, loaded one after the other.

    Args:
        runs: of one task, with the same labels in the same order; their models and tokenizers may differ.
        file: the rows, as for one run.
        output: file for the answers (.jsonl, .csv or .parquet).
        combine: "mean" of the probabilities (of a regression: of the values), or "vote".
        overrides: of the recipe of each run.

    Returns:
        The columns that one run's answers have, and `agreement`: the share of the runs that gave the answer which all
        gave together. `p/LABEL` and `score` are means over the runs with either way. A regression has `spread`
        instead: the standard deviation over the runs.

    Raises:
        UserError: the runs do not go together, or give no such answers.
    """
    refuse_unwritable(output, file)
    if combine not in WAYS:
        raise UserError(f"--combine is {combine}; known: {', '.join(WAYS)}.{did_you_mean(combine, WAYS)}")
    labels, problem = _shared(runs, combine, overrides)
    if file.is_dir() and artefact.status(file):
        raise UserError(f"{file} is a run: the file whose rows are answered comes last.")
    tables = [predict_alone(run, file, overrides=overrides) for run in runs]
    for run, table in zip(runs, tables, strict=True):
        if table["row_id"][:] != tables[0]["row_id"][:]:
            raise UserError(f"{run} reads other rows of {file} than {runs[0]}: their data sections differ.")
    if any("novelty" in table.column_names for table in tables):
        print("The column novelty is left out: it is of one run's embeddings.", flush=True)
    combined = together(tables, labels, problem, combine)
    if output is not None and os.environ.get("RANK", "0") == "0":
        artefact.write_table(combined, output)
    return combined


def _shared(runs: Sequence[Path], combine: str, overrides: Mapping[str, Any] | None) -> tuple[tuple[str, ...], str]:
    """Return the labels and the kind of problem that all runs share; UserError names the first that does not."""
    from finetune.recipe import Recipe

    recipes: dict[Path, Recipe] = {}
    for run in runs:
        place = artefact.open_run(run).resolve()
        if place in recipes:
            raise UserError(f"{run} is given twice: it would count twice.")
        recipes[place] = Recipe.read(run / artefact.RECIPE, overrides)
    first = next(iter(recipes.values())).task
    for run, recipe in zip(runs, recipes.values(), strict=True):
        task = recipe.task
        if task.kind not in KINDS:
            raise UserError(
                f"{run}: runs of task.kind {task.kind} do not answer together; of {', '.join(KINDS)} they do."
            )
        if task.kind != first.kind:
            raise UserError(f"{run} has task.kind {task.kind}, and {runs[0]} has {first.kind}.")
        if _problem(task) != _problem(first):
            raise UserError(f"{run} has task.problem {_problem(task)}, and {runs[0]} has {_problem(first)}.")
        if _labels(task) != _labels(first):
            order = sorted(_labels(task)) == sorted(_labels(first))
            how = "the same labels in another order" if order else "other labels"
            ours, theirs = (", ".join(_labels(each)[:10]) for each in (task, first))
            raise UserError(f"{run} has {how} ({ours}) than {runs[0]} ({theirs}).")
    if combine == "vote" and _problem(first) == "regression":
        raise UserError(f"--combine vote is for labels, and {runs[0]} answers with a number; leave it out.")
    return _labels(first), _problem(first)


def _problem(task: Any) -> str:
    return getattr(task, "problem", None) or "single"


def _labels(task: Any) -> tuple[str, ...]:
    return tuple(task.labels or ())


def together(tables: Sequence[Dataset], labels: Sequence[str], problem: str, combine: str) -> Dataset:
    """Return one table of answers of the tables of several runs, whose rows are the same.

    In a vote each run has one voice for its label, or for and against each label of several; equal votes are decided by
    the mean probability.
    """
    import numpy as np
    from datasets import Dataset

    asked: dict[str, Any] = {name: tables[0][name][:] for name in ASKED if name in tables[0].column_names}
    if problem == "regression":
        values = np.array([table["prediction"][:] for table in tables], dtype=np.float64)
        spread = values.std(axis=0, ddof=1) if len(tables) > 1 else np.zeros(values.shape[1])
        return Dataset.from_dict({**asked, "prediction": values.mean(axis=0), "spread": spread})
    each = np.array([[table[f"p/{name}"][:] for name in labels] for table in tables], dtype=np.float64)
    each = each.transpose(0, 2, 1)  # (runs, rows, labels)
    p = each.mean(axis=0)
    if problem == "single":
        own = each.argmax(axis=2)
        chosen = p.argmax(axis=1) if combine == "mean" else _most_voted(own, p)
        prediction: list[Any] = [labels[int(number)] for number in chosen]
        score = p[np.arange(len(p)), chosen]
        same = own == chosen
    else:
        said = each > 0.5
        for_it = said.mean(axis=0)
        on = p > 0.5 if combine == "mean" else (for_it > 0.5) | ((for_it == 0.5) & (p > 0.5))
        prediction = [[name for name, yes in zip(labels, row, strict=True) if yes] for row in on]
        score = np.where(on, p, 1 - p).prod(axis=1)
        same = (said == on).all(axis=2)
    shares = {f"p/{name}": p[:, number] for number, name in enumerate(labels)}
    return Dataset.from_dict(
        {**asked, "prediction": prediction, "score": score, **shares, "agreement": same.mean(axis=0)}
    )


def _most_voted(own: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return the label with the most votes of each row; of equally many the one with the highest mean probability."""
    import numpy as np

    votes = (own[:, :, None] == np.arange(p.shape[1])).sum(axis=0)
    tied = votes == votes.max(axis=1, keepdims=True)
    chosen: np.ndarray = np.where(tied, p, -1.0).argmax(axis=1)
    return chosen
