"""The mean of the weights of several whole runs that were trained from one model (arXiv:2203.05482)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.agreement import beside_reference, meaning
from finetune.deriving import derive, fingerprint
from finetune.errors import UserError
from finetune.reloading import holds_adapter, load_run

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.recipe import Recipe


def soup(runs: Sequence[Path], output: Path, overrides: Mapping[str, Any] | None = None) -> Path:
    """Write a run whose weights are the equal mean of those of several, scored beside the first.

    Args:
        runs: finished runs of whole models, with one architecture, vocabulary, task and labels, trained from the same
            weights: the mean of unrelated ones is none of them.
        output: the new run's folder, in which nothing lies.
        overrides: of the recipe of the first run.

    Raises:
        UserError: runs that do not go together; nothing is written.
    """
    for run in runs:
        if holds_adapter(run):
            raise UserError(f"--method soup is for whole models, and {run} holds an adapter: leave --method out.")
    loaded = load_run(runs[0], overrides)
    recipe, model, processor = loaded
    means = {name: each.detach().clone() for name, each in model.state_dict().items()}
    _check_weights(runs[0], model)
    sums = {name: each.double() for name, each in means.items() if each.is_floating_point()}
    for run in runs[1:]:
        other_recipe, other, other_processor = load_run(run)
        _check_weights(run, other)
        _check_alike(runs[0], recipe, run, other_recipe)
        if _vocabulary(processor) != _vocabulary(other_processor):
            raise UserError(f"{run} and {runs[0]} have different tokenizers: rows of their token vectors differ.")
        _add(sums, means, other.state_dict(), run, runs[0])
    model.load_state_dict({**means, **{name: (each / len(runs)).to(means[name].dtype) for name, each in sums.items()}})
    model = model.to(recipe.train.device).eval()  # type: ignore[arg-type]  # the stub of a decorated method
    gaps = [beside_reference(run, recipe.task, model) for run in runs]
    for run, found in zip(runs, gaps, strict=True):
        print(f"Beside {run}: {found.described()}.", flush=True)
    origin = {
        "made_by": "merge",
        "of": [fingerprint(run) | {"weight": 1 / len(runs)} for run in runs],
        "method": "soup",
        "gaps": [asdict(gap) for gap in gaps],
    }
    return derive(runs[0], output, (recipe, model, processor), origin)


def _check_weights(run: Path, model: PreTrainedModel) -> None:
    from finetune.models.quantized import in_fewer_bits

    if in_fewer_bits(model.config) or getattr(model, "is_quantized", False):
        raise UserError(f"{run} is in fewer bits, of which there is no mean: give the run that it came from.")


def _check_alike(first: Path, recipe: Recipe, run: Path, other: Recipe) -> None:
    """Refuse runs of other tasks or labels, and those that did not start from the same weights."""
    from finetune.loading import same_weights

    if meaning(other) != meaning(recipe):
        raise UserError(f"{run} and {first} have different labels or tasks: the mean of their weights means neither.")
    if recipe.model.path is None or other.model.path is None:
        if run.resolve() == first.resolve():
            return
        scratch = first if recipe.model.path is None else run
        raise UserError(f"{scratch} was trained from scratch: a soup is of runs that started from the same weights.")
    if not same_weights(recipe.model, other.model):
        raise UserError(
            f"{run} was trained from {other.model.path}, and {first} from {recipe.model.path}: a soup is of runs that "
            "started from the same weights."
        )


def _vocabulary(processor: Any) -> dict[str, int] | None:
    return processor.get_vocab() if hasattr(processor, "get_vocab") else None


def _add(
    sums: dict[str, Tensor], first: Mapping[str, Tensor], other: Mapping[str, Tensor], run: Path, of: Path
) -> None:
    """Add one model's weights; UserError for another architecture, or for other whole numbers among the weights."""
    import torch

    if odd := sorted(set(first) ^ set(other)):
        raise UserError(f"{run} and {of} have different architectures: {odd[0]} is in one alone.")
    for name, weight in other.items():
        if weight.shape != first[name].shape:
            shapes = " and ".join(str(tuple(each.shape)) for each in (weight, first[name]))
            raise UserError(f"{run} and {of} have different architectures: {name} has the shapes {shapes}.")
        if name in sums:
            sums[name] += weight.double()
        elif not torch.equal(weight, first[name]):
            raise UserError(f"{run} and {of} differ in {name}, which is of whole numbers and has no mean.")
