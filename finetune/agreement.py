"""How far two models lie apart on the same inputs: their logits, and the answers that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from finetune.recipe import Recipe
    from finetune.task import Batch, Task


@dataclass(frozen=True)
class Gap:
    """Two models on the same rows."""

    rows: int
    largest: float  # absolute difference of logits
    relative: float  # that, by the largest logit or 1, whichever is greater: what a tolerance is held against
    same: float | None  # share of the rows with the same answer; None where logits name none (numbers, images)

    def described(self) -> str:
        """Return the gap in words."""
        same = "" if self.same is None else f", {self.same:.1%} of the answers the same"
        return f"logits differ by up to {self.largest:.3g} (relative {self.relative:.3g}) on {self.rows} rows{same}"


def gap(task: Task, pairs: Iterable[tuple[Tensor, Tensor]]) -> Gap:
    """Return how far logits (batch, n) of one model lie from those of another, given batch by batch."""
    rows, agreeing, largest, scale = 0, 0, 0.0, 1.0
    answers = _answers(task)
    for one, other in pairs:
        rows += len(one)
        largest = max(largest, float((one - other).abs().max()))
        scale = max(scale, float(other.abs().max()))
        if answers is not None:
            agreeing += int((answers(one) == answers(other)).flatten(1).all(dim=1).sum())
    return Gap(rows, largest, largest / scale, None if answers is None else agreeing / max(rows, 1))


def _answers(task: Task) -> Callable[[Tensor], Tensor] | None:
    """Return the function from logits to what a task answers, shape (batch, …); None for numbers and images."""
    problem = getattr(task, "problem", "single")
    if task.targets != "labels" or problem in ("regression", "tags", "answers"):  # of every token, padding too
        return None
    if problem == "multi":
        return lambda logits: logits > 0
    return lambda logits: logits.argmax(dim=1, keepdim=True)


def beside_reference(run: Path, task: Task, model: PreTrainedModel) -> Gap:
    """Return how far a model's logits on a run's reference rows lie from those that the run keeps."""
    return gap(task, ((given, kept) for given, kept in zip(answered(run, task, model), _kept(run), strict=True)))


def answered(run: Path, task: Task, model: PreTrainedModel) -> Iterator[Tensor]:
    """Yield a model's logits on each batch of a run's reference rows, on the CPU."""
    import torch

    for batch, _ in artefact.reference_batches(run):
        with torch.no_grad():  # not around the yield: it would hold for whoever asks
            logits = task.logits(model, on_device(batch, model)).float().cpu()
        yield logits


def on_device(batch: Batch, model: PreTrainedModel) -> Batch:
    """Return a batch where the model is."""
    return {name: each.to(model.device) for name, each in batch.items()}


def _kept(run: Path) -> Iterator[Tensor]:
    return (logits for _, logits in artefact.reference_batches(run))


def meaning(recipe: Recipe) -> tuple[Any, ...]:
    """Return what the logits of a run mean."""
    return recipe.task.kind, *(getattr(recipe.task, name, None) for name in ("problem", "labels"))
