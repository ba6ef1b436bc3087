"""Options that the adversarial trainer cannot honour: each is one line before anything is trained."""

from __future__ import annotations

import os
from typing import Any

from torch.nn import BatchNorm1d
from transformers import TrainingArguments

from finetune.errors import UserError
from finetune.training.options import PLATEAUS, TrainOptions

OPTIMISERS = (
    "adamw_torch",
    "adamw_torch_fused",
    "sgd",
    "rmsprop",
    "adagrad",
    "adafactor",
    "adamw_bnb_8bit",
    "lion_32bit",
)

# {option: what to do instead}; an option is refused where it differs from the library's default.
UNUSED: dict[str, str] = {
    "head_learning_rate": "use task.discriminator_learning_rate",
    "layer_decay": "both players learn at one rate each",
    "freeze_layers": "both players are trained as a whole",
    "nan_budget": "a step that one player leaves out cannot be taken by the other",
    "rdrop_alpha": "there are no answers to hold against each other",
    "adversarial": "there are no word embeddings here",
    "adam_beta1": "use task.adam_betas, which follow the loss when left out",
    "adam_beta2": "use task.adam_betas, which follow the loss when left out",
    "neftune_noise_alpha": "there are no word embeddings here",
    "activation_checkpointing": "gradients of gradients are not recomputed",
    "gradient_checkpointing": "gradients of gradients are not recomputed",
    "use_liger_kernel": "it knows language models alone",
    "torch_compile": "it has no gradients of gradients",
    "torch_empty_cache_steps": "it would slow both players down",
    "optim_target_modules": "both players are trained as a whole",
    "train_sampling_strategy": "all images are equally long",
}


def refuse(args: TrainOptions, network: Any, inputs: Any) -> None:
    """Raise UserError for what two players with two optimisers cannot be given."""
    if not hasattr(inputs, "num_rows"):
        raise UserError("data.streaming: adversarial training needs rows that can be counted. Leave it out.")
    for name, instead in UNUSED.items():
        if getattr(args, name, None) not in (_default(name), None, False):
            raise UserError(f"train.{name} does not work with adversarial training: {instead}. Leave it out.")
    if hasattr(network, "peft_config"):
        raise UserError("adapter: adversarial training trains whole networks. Leave the section out.")
    if (dtype := str(network.dtype).removeprefix("torch.")) != "float32":
        raise UserError(f"model.dtype is {dtype}: an average of small steps needs float32; use train.bf16.")
    if args.fp16:
        raise UserError("train.fp16: one gradient scaler cannot serve two players; use train.bf16.")
    if args.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise UserError("DeepSpeed holds one model, and adversarial training has two: use the profile cpu, gpu or ddp.")
    if args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise UserError("FSDP is not offered for adversarial training: use the profile cpu, gpu or ddp.")
    if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "fp8":
        raise UserError("fp8 holds one model, and adversarial training has two: use train.bf16.")
    if args.lr_scheduler_type in PLATEAUS:
        raise UserError("train.lr_scheduler_type: a schedule that watches a score does not fit two players.")
    name = str(getattr(args.optim, "value", args.optim))
    if name not in OPTIMISERS:
        raise UserError(f"train.optim: {name} is not offered for two players; use one of {', '.join(OPTIMISERS)}.")
    _refuse_single_images(args, network, inputs.num_rows)


def _refuse_single_images(args: TrainOptions, network: Any, rows: int) -> None:
    """Raise UserError where batch norm of plain layers, which takes means over images alone, would be given one."""
    batch = args.per_device_train_batch_size
    alone = batch == 1 or (rows % batch == 1 and not args.dataloader_drop_last)
    if alone and any(isinstance(each, BatchNorm1d) for each in network.modules()):
        raise UserError(
            f"train.per_device_train_batch_size: {rows} images in batches of {batch} leave one alone, and batch norm "
            "of plain layers needs two: give another size, or train.dataloader_drop_last, or leave the norm out."
        )


def _default(name: str) -> Any:
    known = {**TrainingArguments.__dataclass_fields__, **TrainOptions.__dataclass_fields__}
    return known[name].default
