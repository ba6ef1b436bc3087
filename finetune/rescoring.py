"""The rows that a run is scored on, answered once more: by its own model, or by one that was made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.task import Task

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedModel

    from finetune.data import Splits
    from finetune.recipe import Recipe
    from finetune.task import Processor, Scores
    from finetune.training.trainer import Trainer


@dataclass(frozen=True)
class Rescored:
    """Answers to the test rows, or to the validation rows where the recipe names no test rows, and their scores."""

    split: str  # "test" or "validation"
    rows: Dataset
    inputs: dict[str, Dataset]  # of the split; of "train" too, for a generator that is compared with it, or a fit
    answers: dict[str, np.ndarray]
    scores: Scores
    fingerprints: dict[str, Any]  # of the files
    trainer: Trainer


def rescored(recipe: Recipe, model: PreTrainedModel, processor: Processor, run: Path, fits: bool = False) -> Rescored:
    """Let a model answer the rows of a run's recipe, and score it.

    Args:
        recipe, model, processor, run: of what is scored.
        fits: something is to be fitted to the training rows: they, and those of validation, must be there.

    Raises:
        UserError: the recipe names no such rows, they are gone, or they have nothing to score against.
    """
    held = "test" if recipe.data.test is not None else "validation"
    if held == "validation" and recipe.data.validation is None:
        raise UserError(f"{run}: the recipe has no test or validation rows. Name some: --data.test FILE.")
    splits = _splits(recipe, held, fits)
    trainer = trainer_for(recipe, model, processor, run)
    encoders = (recipe.task.encode_held, recipe.task.encode)
    inputs = {
        name: encoders[name == "train"](splits.rows[name], processor, recipe.data.on_long).inputs
        for name in dict.fromkeys(("train", "validation", held))
        if name in splits.rows
    }
    if recipe.task.targets not in inputs[held].column_names:
        raise UserError(f"data.{held}: the rows have no {recipe.task.columns().label!r} to score against.")
    answers = full_answers(trainer, inputs[held], processor, recipe.evaluate.generated)
    scores = recipe.task.score(answers, inputs[held], recipe.evaluate.resamples)
    return Rescored(held, splits.rows[held], inputs, answers, scores, splits.fingerprints, trainer)


def full_answers(
    trainer: Trainer,
    inputs: Dataset,
    processor: Processor,
    most: int | None = None,
    other: PreTrainedModel | None = None,
) -> dict[str, np.ndarray]:
    """Return the answers to inputs and, beside them, what the task writes for the first `most` of them.

    Args:
        trainer: whose model answers.
        inputs, processor, most: as above.
        other: answers instead: a model in evaluation mode, on the trainer's device.
    """
    task = trainer.task
    answers = trainer.answers(inputs, lambda model, batch: task.answer(other or model, batch))
    if type(task).write is Task.write:
        return answers
    first = inputs if most is None else inputs.select(range(min(most, len(inputs))))
    return answers | trainer.answers(first, lambda model, batch: task.write(other or model, processor, batch))


def trainer_for(recipe: Recipe, model: PreTrainedModel, processor: Processor, run: Path) -> Trainer:
    """Return a trainer that answers and trains nothing; `run` is where it would write."""
    from finetune.tasks import trainer_class
    from finetune.training.options import fitted_to_answer

    args = fitted_to_answer(recipe.train)
    args.output_dir = str(run)
    return trainer_class(recipe.task)(
        task=recipe.task, model=model, args=args, train_inputs=None, eval_inputs=None, processor=processor, stamp={}
    )


def _splits(recipe: Recipe, held: str, fits: bool) -> Splits:
    """Return the rows to evaluate on; with the training rows, where they are still there, for a generator of images."""
    from finetune.data import load_splits
    from finetune.rewriting import load_rows

    columns = recipe.task.columns()
    if fits:
        try:
            return load_rows(recipe, tuple(dict.fromkeys(("train", "validation", held))))
        except UserError as error:
            what = "evaluate.outliers and evaluate.novelty: the run keeps no novelty/ yet, which the training rows make"
            raise UserError(f"{what}; {error}") from None
    if recipe.task.generates_images() and not recipe.data.streaming:
        try:
            return load_splits(recipe.data, columns, ("train", held))
        except UserError:
            pass  # moved, or gone: the examination says what it leaves out
    # A validation set that was held out of the training rows needs them to be found again.
    return load_splits(recipe.data, columns, (held,))
