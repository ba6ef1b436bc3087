"""What a smaller run is made of: the whole model of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.deriving import refuse_existing
from finetune.errors import UserError
from finetune.merging import whole_recipe
from finetune.reloading import load_merged

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

    from finetune.recipe import Recipe
    from finetune.task import Processor

TASKS = ("text-classification", "token-classification", "question-answering", "causal-lm")


@dataclass(frozen=True)
class Whole:
    """A run with its weights in one model: an adapter is merged into its base."""

    recipe: Recipe  # of the run, without its adapter
    model: PreTrainedModel  # in evaluation mode
    processor: Processor


def open_whole(run: Path, output: Path | None, overrides: Mapping[str, Any] | None, verb: str) -> Whole:
    """Return the model of a run that is to become `output`.

    Raises:
        UserError: something lies at `output`, the run is of a task that `verb` does not know, its adapter cannot be
            merged, or it is in fewer bits already.
    """
    artefact.open_run(run)
    if output is None:
        raise UserError(f"--output is missing: finetune {verb} {run} --output FOLDER")
    refuse_existing(output)
    recipe, model, processor = load_merged(run, overrides)
    if recipe.task.kind not in TASKS:
        raise UserError(f"{run} is of {recipe.task.kind}; finetune {verb} takes runs of {' and '.join(TASKS)}.")
    if getattr(model.config, "quantization_config", None) is not None:
        raise UserError(f"{run} is in fewer bits already; give the run that it came from.")
    return Whole(whole_recipe(recipe), model.eval(), processor)
