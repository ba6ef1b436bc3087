"""A run comes back: its recipe, model and processor from its folder alone, and the check that it answers as it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import CheckFailed, UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.loading import ModelOptions
    from finetune.recipe import Recipe


def load_run(
    run: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[Recipe, PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the recipe, the model (adapter attached) and the processor of a run, from its folder alone."""
    from finetune.adapters import HeadOnly, load_adapter
    from finetune.recipe import Recipe

    recipe = Recipe.read(run / artefact.RECIPE, overrides)
    if recipe.adapter is not None and not isinstance(recipe.adapter, HeadOnly):
        recipe, base, processor, _ = load_base(run, overrides)
        return recipe, load_adapter(base, run), processor  # type: ignore[return-value]  # a PeftModel stands for it
    source = _within(run, recipe)
    processor = recipe.task.load_processor(source, lambda: iter(()))
    model, _ = recipe.task.load_model(source, processor)
    return recipe, model.eval(), processor


def load_base(
    run: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[Recipe, PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """Return the recipe, the base without its adapter, the processor, and the names of the base's new parameters."""
    from finetune.recipe import Recipe

    recipe = Recipe.read(run / artefact.RECIPE, overrides)
    source = replace(recipe.model, tokenizer=str(run))
    processor = recipe.task.load_processor(source, lambda: iter(()))
    model, new = recipe.task.load_model(source, processor)
    return recipe, model.eval(), processor, new


def load_runs(runs: Sequence[Path]) -> tuple[dict[str, Recipe], PeftModel, dict[str, PreTrainedTokenizerBase]]:
    """Load the adapters of several runs over one base, which is in memory once.

    `model.set_adapter(NAME)` puts the adapter (and head) of the run with this folder name to work; the first run's is
    at work at the beginning.

    Returns:
        The recipes by the folder names of the runs, the model, and the processors by the same names.

    Raises:
        UserError: a run has no adapter, they adapt different bases, or their heads differ in size.
    """
    from finetune.adapters import load_adapters
    from finetune.loading import same_weights
    from finetune.recipe import Recipe

    recipes, processors, base = {}, {}, None
    for run in runs:
        if not holds_adapter(artefact.open_run(run)):
            raise UserError(f"{run} holds no adapter, and cannot share a base.")
        if run.name in recipes:
            raise UserError(f"{run}: two runs have the name {run.name}; an adapter is called by it.")
        if base is None:
            recipe, base, processor, _ = load_base(run)
        else:
            recipe = Recipe.read(run / artefact.RECIPE)
            if not same_weights(recipe.model, recipes[runs[0].name].model):
                raise UserError(f"{run} adapts {recipe.model.path}: another base than {runs[0]} adapts.")
            processor = recipe.task.load_processor(replace(recipe.model, tokenizer=str(run)), lambda: iter(()))
        recipes[run.name], processors[run.name] = recipe, processor
    assert base is not None
    return recipes, load_adapters(base, {run.name: run for run in runs}), processors


def holds_adapter(run: Path) -> bool:
    """Say whether a run's weights are those of an adapter, for which its base is needed."""
    from finetune.loading.merged import holds_adapter

    return holds_adapter(run)


def load_merged(
    run: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[Recipe, PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the recipe, a whole model and the processor of a run: its adapter is merged into the base in fp32."""
    from finetune.recipe import Recipe

    if not holds_adapter(run):
        return load_run(run, overrides)
    recipe = Recipe.read(run / artefact.RECIPE, overrides)
    source = _within(run, recipe)
    processor = recipe.task.load_processor(source, lambda: iter(()))
    model, new = recipe.task.load_model(source, processor)
    if new:
        raise CheckFailed(f"{run}: its adapter does not bring {new[0]}, which would stay random when merged.")
    return recipe, model.eval(), processor


def _within(run: Path, recipe: Recipe) -> ModelOptions:
    """Return the recipe's model with the run's own folder as its source."""
    place = str(run)
    return replace(
        recipe.model,
        path=place,
        tokenizer=place,
        revision=None,
        config=None,
        gguf_file=None,
        sha256=None,
        quantize=None,
        layers=None,
    )


def verify(run: Path) -> artefact.Verdict:
    """Reload a run in this process and compare its logits with those kept when it was trained.

    Raises:
        CheckFailed: they differ by more than the tolerance.
    """
    return compare_reloaded(run, "fresh")


def compare_reloaded(run: Path, process: str, overrides: Mapping[str, Any] | None = None) -> artefact.Verdict:
    """Reload a run here, compare, and record the verdict in the run."""
    import torch

    if not (run / artefact.REFERENCE).exists():
        raise UserError(f"{run} is not a run with reference rows: {artefact.REFERENCE} is missing.")
    recipe, model, _ = load_run(run, overrides)
    model.to(recipe.train.device)  # type: ignore[arg-type]  # the stub of a decorated method
    with torch.no_grad():
        verdict = artefact.compare(
            run,
            lambda batch: recipe.task.logits(model, {n: each.to(recipe.train.device) for n, each in batch.items()}),
            process,
        )
    artefact.write_verdict(run, verdict)
    return verdict
