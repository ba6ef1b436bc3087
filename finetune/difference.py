"""`finetune diff`: how two runs changed one base, module by module, and whether they answer alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import artefact
from finetune.agreement import Gap, answered, gap, meaning
from finetune.errors import UserError
from finetune.reloading import load_base, load_merged

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.recipe import Recipe
    from finetune.task import Task

LEAST = 1e-3  # of the greatest singular value: those below are no rank


@dataclass(frozen=True)
class Change:
    """What two runs made of one weight of their base; norms are Frobenius norms."""

    name: str
    norms: tuple[float, float]  # of each run's update
    difference: float  # norm of one update minus the other
    cosine: float | None  # between the updates; None where one run left the weight as it was
    ranks: tuple[int, int] | None  # of each update, to 0.1 % of its greatest singular value; None for vectors


@dataclass(frozen=True)
class Difference:
    """How two runs lie apart."""

    runs: tuple[Path, Path]
    total: Change
    changes: tuple[Change, ...]  # of the weights that one of them changed, in the model's order
    heads: tuple[Change, ...]  # of the weights that the base does not bring, as they are; empty where sizes differ
    gaps: tuple[Gap, Gap] | None  # on the reference rows of each; None where their logits mean different things


def diff(runs: Sequence[Path]) -> Difference:
    """Compare two runs of one base: adapters of any method that can be merged, heads, or whole fine-tunings.

    Raises:
        UserError: not two runs, or they start from different weights.
    """
    if len(runs) != 2:
        raise UserError(f"finetune diff compares two runs, and was given {len(runs)}.")
    for run in runs:
        artefact.open_run(run)
    recipe, base, _, new = load_base(runs[0], {"model.quantize": None})
    before = _weights(base)
    del base
    (one, first), (other, second) = (_merged(run, recipe, runs[0]) for run in runs)
    here, there = _weights(first), _weights(second)
    for run, weights in zip(runs, (here, there), strict=True):
        _check_whole(run, before, weights, new)
    kept = [(name, weight) for name, weight in before.items() if name not in new]
    changes = [_change(name, here[name] - weight, there[name] - weight, _rounding(weight)) for name, weight in kept]
    heads = [_change(name, here[name], there[name]) for name in new if here[name].shape == there[name].shape]
    gaps = None
    if meaning(one) == meaning(other):
        gaps = (_gap(runs[0], one.task, first, second), _gap(runs[1], one.task, first, second))
    return Difference(
        (runs[0], runs[1]), _total(changes), tuple(each for each in changes if any(each.norms)), tuple(heads), gaps
    )


def _merged(run: Path, recipe: Recipe, first: Path) -> tuple[Recipe, PreTrainedModel]:
    from finetune.loading import same_weights

    own, model, _ = load_merged(run)
    if own.model.path is None or recipe.model.path is None:
        raise UserError(f"{run if own.model.path is None else first} was trained from scratch: it has no base.")
    if not same_weights(own.model, recipe.model):
        raise UserError(f"{run} starts from {own.model.path}, and {first} from {recipe.model.path}: nothing is shared.")
    return own, model


def _weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.detach().double() for name, weight in model.named_parameters()}


def _check_whole(run: Path, before: dict[str, Tensor], weights: dict[str, Tensor], new: Sequence[str]) -> None:
    """Refuse a run that does not have its base's weights, each in its size."""
    for name, weight in before.items():
        if name not in new and (name not in weights or weights[name].shape != weight.shape):
            raise UserError(f"{run}: its {name} has not its base's size: pruned, or in fewer bits, nothing compares.")


def _rounding(weight: Tensor) -> float:
    """Return about the greatest singular value of what fp32 rounds off a weight of this size and scale."""
    import torch

    sides = sum(side**0.5 for side in weight.shape)
    return float(torch.finfo(torch.float32).eps * weight.square().mean().sqrt() * sides)


def _change(name: str, one: Tensor, other: Tensor, noise: float = 0.0) -> Change:
    norms = float(one.norm()), float(other.norm())
    cosine = float((one * other).sum()) / (norms[0] * norms[1]) if all(norms) else None
    ranks = (_rank(one, noise), _rank(other, noise)) if one.ndim == 2 and any(norms) else None
    return Change(name, norms, float((one - other).norm()), cosine, ranks)


def _rank(update: Tensor, noise: float) -> int:
    import torch

    values = torch.linalg.svdvals(update)
    return int((values > max(LEAST * float(values[0]), noise)).sum()) if len(values) else 0


def _total(changes: Sequence[Change]) -> Change:
    """Return the updates of all weights taken as one vector."""
    norms = tuple(sum(each.norms[side] ** 2 for each in changes) ** 0.5 for side in (0, 1))
    product = sum((each.cosine or 0.0) * each.norms[0] * each.norms[1] for each in changes)
    apart = sum(each.difference**2 for each in changes) ** 0.5
    return Change("all", (norms[0], norms[1]), apart, product / (norms[0] * norms[1]) if all(norms) else None, None)


def _gap(run: Path, task: Task, first: PreTrainedModel, second: PreTrainedModel) -> Gap:
    return gap(task, zip(answered(run, task, first), answered(run, task, second), strict=True))


def text(found: Difference) -> str:
    """Return a difference as a table, a line a weight."""
    width = max(len(each.name) for each in (found.total, *found.changes, *found.heads))
    lines = [f"{'update of':<{width}}  {'norm':>9}  {'norm':>9}  {'difference':>10}  {'cosine':>7}  rank"]
    lines += [_line(each, width) for each in (*found.changes, found.total)]
    if found.heads:
        lines += [f"{'head':<{width}}", *(_line(each, width) for each in found.heads)]
    if found.gaps is None:
        lines.append("Their labels or tasks differ: their answers are not compared.")
    for run, each in zip(found.runs, found.gaps or (), strict=False):
        lines.append(f"On the reference rows of {run}: {each.described()}.")
    return "\n".join(lines)


def _line(each: Change, width: int) -> str:
    cosine = "" if each.cosine is None else f"{each.cosine:.3f}"
    ranks = "" if each.ranks is None else "{} {}".format(*each.ranks)
    numbers = f"{each.norms[0]:>9.4g}  {each.norms[1]:>9.4g}  {each.difference:>10.4g}  {cosine:>7}  {ranks}"
    return f"{each.name:<{width}}  {numbers}".rstrip()
