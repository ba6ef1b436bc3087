"""What would fail at the first step, or hang at the last, is found before a run's folder is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.trainer_optimizer import is_optimizer_factory

from finetune.errors import UserError
from finetune.task import Task

if TYPE_CHECKING:
    from finetune.training.options import TrainOptions
    from finetune.training.trainer import Trainer

FAILURES = (ImportError, NotImplementedError, TypeError, ValueError)
STEPS = 1000  # of the schedule that is tried, where the recipe does not say how many


def refuse_looks_at_shards(trainer: Trainer) -> None:
    """Refuse a task that is looked at on the first process alone where each process holds a part of the weights.

    The first would wait for the others in its forward passes, and they for it at the end.
    """
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    sharded = trainer.is_fsdp_enabled or (trainer.is_deepspeed_enabled and is_deepspeed_zero3_enabled())
    if not sharded or trainer.args.world_size == 1:
        return
    task, option = trainer.task, trainer.task.examined_by
    looks = type(task).examine is not Task.examine and (option is None or bool(getattr(task, option)))
    if looks or task.unit == "images":  # whose pictures are drawn on the way, too
        instead = "" if option is None else f", or leave task.{option} out"
        raise UserError(
            f"task.kind {task.kind} looks at the model on one process, which must hold it whole: use ddp or ZeRO-2, "
            f"not FSDP or ZeRO-3{instead}."
        )


def rehearse(args: TrainOptions, model: Any) -> None:
    """Make the optimiser and the schedule once, for a single number; the model stays as it is.

    Raises:
        UserError: one of them cannot be made, or the precision is none of this device's.
    """
    if args.fp16 and args.device.type == "cpu":
        raise UserError("train.fp16: a CPU would train in fp32 all the same; leave it out, or use train.bf16.")
    optimizer = _optimizer(args, model)
    if optimizer is None:
        return
    steps = args.max_steps if args.max_steps > 0 else STEPS
    options: Any = args.lr_scheduler_kwargs  # a str is parsed by now
    try:
        transformers.get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=None if options is None else dict(options),
        )
    except FAILURES as error:
        raise UserError(f"train.lr_scheduler_kwargs: {_said(args.lr_scheduler_type, error)}") from error


def _optimizer(args: TrainOptions, model: Any) -> Any:
    """Return the recipe's optimiser of a single number; None for one that is made of a whole model."""
    name = str(getattr(args.optim, "value", args.optim))
    for each in filter(None, (args.optim_args or "").replace(" ", "").split(",")):
        if each.count("=") != 1:
            raise UserError(f"train.optim_args: {each} is not NAME=VALUE, such as momentum=0.9.")
    if name.endswith("layerwise"):  # made, it would hang on the model's gradients
        return None
    try:
        made, options = transformers.Trainer.get_optimizer_cls_and_kwargs(args, model)
        if is_optimizer_factory(made) or {"params", "model"} & set(options):
            return None
        return made([torch.nn.Parameter(torch.zeros(1, device=args.device))], **options)
    except FAILURES as error:
        raise UserError(f"train.optim: {_said(name, error)}") from error


def _said(name: Any, error: Exception) -> str:
    why = " ".join(str(error).split()).rstrip(".")
    return f"{getattr(name, 'value', name)} cannot be made: {why}."
