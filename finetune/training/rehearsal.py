"""What would fail at the first step, or hang at the last, is found before a run's folder is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.trainer_optimizer import is_optimizer_factory

from finetune.errors import UserError
from finetune.task import Task

if TYPE_CHECKING:
    from finetune.training.options import TrainOptions
    from finetune.training.trainer import Trainer

FAILURES = (ArithmeticError, ImportError, NotImplementedError, TypeError, ValueError)


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


def rehearse(trainer: Trainer) -> None:
    """Make the optimiser and the schedule once, for a single number; the model stays as it is.

    Raises:
        UserError: one of them cannot be made, the schedule has no rate at a step where its formula turns, or the
            precision is none of this device's.
    """
    args = trainer.args
    if args.fp16 and args.device.type == "cpu":
        raise UserError("train.fp16: a CPU would train in fp32 all the same; leave it out, or use train.bf16.")
    optimizer = _optimizer(args, trainer.model)
    if optimizer is None:
        return
    steps = trainer.set_initial_training_values(args, trainer.get_train_dataloader())[-1]
    warmup = args.get_warmup_steps(steps)
    options: Any = args.lr_scheduler_kwargs  # a str is parsed by now
    try:
        schedule: Any = transformers.get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=warmup,
            num_training_steps=steps,
            scheduler_specific_kwargs=None if options is None else dict(options),
        )
    except FAILURES as error:
        raise UserError(f"train.lr_scheduler_kwargs: {_said(args.lr_scheduler_type, error)}") from error
    for step in (0, min(warmup, steps), steps - 1, steps):  # after the last step the loop asks once more
        try:
            rates = [share(step) for share in getattr(schedule, "lr_lambdas", ())]  # none where a score is watched
            if not all(map(math.isfinite, rates)):
                raise ValueError(f"it is {rates[0]}")
        except FAILURES as error:
            raise UserError(
                f"train.lr_scheduler_type: {_name(args.lr_scheduler_type)} has no learning rate after step {step} of "
                f"{steps}, {warmup} of them warm-up ({_why(error)}): see train.warmup_steps and "
                "train.lr_scheduler_kwargs."
            ) from error


def _optimizer(args: TrainOptions, model: Any) -> Any:
    """Return the recipe's optimiser of a single number; None for one that is made of a whole model."""
    name = _name(args.optim)
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
    return f"{_name(name)} cannot be made: {_why(error)}."


def _name(value: Any) -> str:
    return str(getattr(value, "value", value))


def _why(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
