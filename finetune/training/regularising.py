"""What is learned beside the plain loss: two dropout masks that should agree, embeddings moved against the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from finetune.errors import UserError
from finetune.task import Task
from finetune.training.param_groups import freeze

if TYPE_CHECKING:
    from finetune.objectives.teaching import Lesson
    from finetune.task import Batch
    from finetune.training.options import TrainOptions

TINY = 1e-12  # a gradient that is zero has no direction


def prepare(args: TrainOptions, task: Task, model: Any) -> None:
    """Freeze the layers that are not to be trained; UserError where an option has nothing to act on here."""
    freeze(model, args.freeze_layers)
    if args.rdrop_alpha is not None:
        if type(task).divergence is Task.divergence:
            raise UserError(f"train.rdrop_alpha: {task.kind} has no answers to hold against each other. Leave it out.")
        if not any(each.p > 0 for each in model.modules() if isinstance(each, nn.Dropout)):
            raise UserError(
                "train.rdrop_alpha compares two dropout masks, and this model has no dropout. Leave it out."
            )
    if args.adversarial is not None:
        try:
            embeddings = model.get_input_embeddings()
        except (NotImplementedError, AttributeError):
            embeddings = None
        if not hasattr(embeddings, "weight"):
            raise UserError(f"train.adversarial moves token embeddings, and {task.kind} has none here. Leave it out.")


def loss(args: TrainOptions, task: Task | Lesson, model: Any, batch: Batch) -> tuple[Tensor, Any]:
    """Return (loss summed over the batch's targets, outputs) as `Task.loss` does, with what `args` asks for.

    Every part is a sum over targets, or follows from one row's own gradient, so that it does not depend on how rows
    fall into batches.
    """
    if args.rdrop_alpha is not None:
        return _two_masks(args.rdrop_alpha, task, model, batch)
    if args.adversarial is None:
        return task.loss(model, batch)
    if args.adversarial == "fgm":  # one step, of full length
        return _moved(task, model, batch, 2, args.adversarial_epsilon, args.adversarial_epsilon)
    return _moved(task, model, batch, args.adversarial_steps, args.adversarial_step_size, args.adversarial_epsilon)


def _two_masks(alpha: float, task: Task | Lesson, model: Any, batch: Batch) -> tuple[Tensor, Any]:
    """R-Drop (Liang et al. 2021, arXiv:2106.14448): the mean loss of two passes, and alpha times how far they part."""
    one, outputs = task.loss(model, batch)
    other, again = task.loss(model, batch)
    apart = (task.divergence(outputs, again, batch) + task.divergence(again, outputs, batch)) / 2
    return (one + other) / 2 + alpha * apart, outputs


def _moved(task: Task | Lesson, model: Any, batch: Batch, passes: int, step: float, most: float) -> tuple[Tensor, Any]:
    """Return the mean loss of `passes` passes, each with the embeddings moved on from the last one against the model.

    FGM (Miyato et al. 2017, arXiv:1605.07725) is two passes and one step of the full length. With shorter steps it is
    FreeLB (Zhu et al. 2020, arXiv:1909.11764), but that the first pass is the plain one and not a random place.

    Args:
        step: length of a step along a row's gradient: L2 norm over its tokens and dimensions.
        most: length that a row's whole way is cut to.
    """
    from accelerate.utils import extract_model_from_parallel

    embeddings = extract_model_from_parallel(model).get_input_embeddings()
    way: list[Tensor] = []  # one for each time that the embeddings are asked in a pass: an encoder, and its decoder
    total, first = torch.zeros((), device=next(embeddings.parameters()).device), None
    for number in range(passes):
        with _asked(embeddings, way) as seen:
            each, outputs = task.loss(model, batch)
        total = total + each / passes
        first = outputs if first is None else first
        if number + 1 < passes:
            slopes = torch.autograd.grad(each, seen, retain_graph=True)
            way = _onward(way, [slope.detach().float() for slope in slopes], step, most)
    return total, first


def _onward(way: list[Tensor], slopes: list[Tensor], step: float, most: float) -> list[Tensor]:
    """Return each row's way after one more step up its slope, cut to `most`; shapes (batch, length, width)."""
    moved = [step * slope / _spread(_length(slopes), slope) for slope in slopes]
    moved = [old + new for old, new in zip(way, moved, strict=True)] if way else moved
    shrink = (most / _length(moved)).clamp(max=1.0)
    return [each * _spread(shrink, each) for each in moved]


def _length(parts: list[Tensor]) -> Tensor:
    """Return the L2 norm of each row over all parts, shape (batch,)."""
    return torch.stack([each.flatten(1).square().sum(dim=1) for each in parts]).sum(dim=0).sqrt().clamp(min=TINY)


def _spread(rows: Tensor, like: Tensor) -> Tensor:
    return rows.reshape(-1, *[1] * (like.dim() - 1))


@contextmanager
def _asked(embeddings: nn.Module, way: list[Tensor]) -> Iterator[list[Tensor]]:
    """Move what the embeddings return along `way`, and give what was returned, for a gradient to be taken by."""
    seen: list[Tensor] = []

    def move(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        moved = out + way[len(seen)].to(out.dtype) if way else out
        if not moved.requires_grad:  # the embeddings are frozen under an adapter
            moved = moved.requires_grad_()
        seen.append(moved)
        return moved

    handle = embeddings.register_forward_hook(move)
    try:
        yield seen
    finally:
        handle.remove()
