"""A run comes back: its recipe, model and processor from its folder alone, and the check that it answers as it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.recipe import Recipe


def load_run(
    run: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[Recipe, PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the recipe, the model (adapter attached) and the processor of a run, from its folder alone."""
    from finetune.adapters import HeadOnly, load_adapter
    from finetune.recipe import Recipe

    recipe = Recipe.read(run / artefact.RECIPE, overrides)
    source = replace(recipe.model, tokenizer=str(run))
    whole = recipe.adapter is None or isinstance(recipe.adapter, HeadOnly)
    if whole:
        source = replace(source, path=str(run), revision=None, config=None, gguf_file=None, sha256=None)
    processor = recipe.task.load_processor(source, lambda: iter(()))
    model, _ = recipe.task.load_model(source, processor)
    loaded: PreTrainedModel = model if whole else load_adapter(model, run)  # type: ignore[assignment]
    return recipe, loaded.eval(), processor


def verify(run: Path) -> artefact.Verdict:
    """Reload a run in this process and compare its logits with those kept when it was trained.

    Raises:
        CheckFailed: they differ by more than the tolerance.
    """
    return compare_reloaded(run, "fresh")


def compare_reloaded(run: Path, process: str) -> artefact.Verdict:
    """Reload a run here, compare, and record the verdict in the run."""
    import torch

    if not (run / artefact.REFERENCE).exists():
        raise UserError(f"{run} is not a run with reference rows: {artefact.REFERENCE} is missing.")
    recipe, model, _ = load_run(run)
    model.to(recipe.train.device)  # type: ignore[arg-type]  # the stub of a decorated method
    with torch.no_grad():
        verdict = artefact.compare(
            run,
            lambda batch: recipe.task.logits(model, {n: each.to(recipe.train.device) for n, each in batch.items()}),
            process,
        )
    artefact.write_verdict(run, verdict)
    return verdict
