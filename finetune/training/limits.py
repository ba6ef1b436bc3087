"""What a number of the `train` section can be, and what its neighbours must say beside it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.training.options import TrainOptions

SEEDS = 2**32  # what numpy takes

Fits = Callable[[float], bool]

_FINITE: tuple[Fits, str] = (lambda value: 0 <= value < inf, "0 or more")
_ABOVE: tuple[Fits, str] = (lambda value: 0 < value < inf, "a number above 0")
_SHARE: tuple[Fits, str] = (lambda value: 0 <= value < 1, "0, or a share below 1 such as 0.9")
_COUNT: tuple[Fits, str] = (lambda value: value >= 1, "1 or more")
_MAY_BE_NONE: tuple[Fits, str] = (lambda value: value >= 0, "0 or more")
_CADENCE: tuple[Fits, str] = (lambda value: 0 <= value < inf, "a number of steps, or a share of them below 1")
_SEED: tuple[Fits, str] = (lambda value: 0 <= value < SEEDS, f"a whole number from 0 to {SEEDS - 1}")

# {option: (whether a value fits, what to give)}; NaN fits nowhere, and None stands for an option that is left out.
LIMITS: MappingProxyType[str, tuple[Fits, str]] = MappingProxyType(
    {
        "seed": _SEED,
        "data_seed": _SEED,
        "learning_rate": _FINITE,
        "head_learning_rate": _FINITE,
        "weight_decay": _FINITE,
        "adam_beta1": _SHARE,
        "adam_beta2": _SHARE,
        "adam_epsilon": _FINITE,
        "max_grad_norm": (lambda value: value >= 0, "0 to cut nothing, or a number above it such as 1"),
        "warmup_steps": _CADENCE,
        "neftune_noise_alpha": _FINITE,
        "layer_decay": (lambda value: 0 < value <= 1, "a share above 0 and up to 1, such as 0.9"),
        "freeze_layers": _MAY_BE_NONE,
        "rdrop_alpha": (lambda value: 0 <= value < inf, "0 or more, such as 1"),
        "adversarial_epsilon": _ABOVE,
        "adversarial_step_size": _ABOVE,
        "adversarial_steps": _COUNT,
        "nan_budget": (lambda value: value >= 0, "the number of steps that may be left out, 0 for none"),
        "max_hours": (lambda value: value > 0, "hours above 0, such as 11.5"),
        "max_steps": (lambda value: value == -1 or value >= 1, "1 or more, or leave it out"),
        "per_device_train_batch_size": _COUNT,
        "per_device_eval_batch_size": _COUNT,
        "gradient_accumulation_steps": _COUNT,
        "early_stopping_patience": _COUNT,
        "logging_steps": _CADENCE,
        "eval_steps": _CADENCE,
        "save_steps": _CADENCE,
        "dataloader_num_workers": _MAY_BE_NONE,
        "dataloader_prefetch_factor": _COUNT,
        "ddp_timeout": _COUNT,
    }
)


def out_of_range(options: TrainOptions) -> Iterator[str]:
    """Yield what is wrong with the numbers of a recipe, each beginning with the option's name."""
    for name, (fits, give) in LIMITS.items():
        value = getattr(options, name)
        if isinstance(value, int | float) and not fits(value):
            yield f"{name} is {value}; give {give}"
    epochs = options.num_train_epochs
    if options.max_steps <= 0 and not 0 < epochs < inf:
        yield f"num_train_epochs is {epochs}; give a number above 0, or train.max_steps"
    yield from _without_workers(options)
    yield from _unknown_compiler(options)


def _without_workers(options: TrainOptions) -> Iterator[str]:
    """Yield what is said of the processes that read rows where there are none, or cannot be."""
    method = options.dataloader_multiprocessing_context
    if not options.dataloader_num_workers:
        for name in ("dataloader_persistent_workers", "dataloader_multiprocessing_context"):
            if getattr(options, name):
                yield f"{name} needs train.dataloader_num_workers: 1 or more"
    elif method is not None and method not in (known := multiprocessing.get_all_start_methods()):
        yield f"dataloader_multiprocessing_context is {method}; known: {', '.join(known)}"


def _unknown_compiler(options: TrainOptions) -> Iterator[str]:
    """Yield a compiler that accelerate does not know: the library would leave its name in the environment first."""
    from accelerate.utils import DynamoBackend

    name = options.torch_compile_backend
    known = [str(each.value).lower() for each in DynamoBackend if each.value != "NO"]
    if name is not None and name.lower() not in known:
        yield f"torch_compile_backend is {name}; known: {', '.join(known)}"
