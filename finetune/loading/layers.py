"""A model that starts from some of the layers of a larger one, as DistilBERT does."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OF_LAYERS = ("layer_types", "mlp_layer_types")  # options of configurations that have a value for every layer


def chosen_layers(count: int, there: int) -> list[int]:
    """Return the numbers of `count` layers at equal distances: DistilBERT's own 0, 2, 4, 7, 9, 11 for 6 of 12.

    Sanh et al. 2019 (arXiv:1910.01108), section 3: a student is initialised from its teacher's layers.
    """
    return [round(each * (there - 1) / max(count - 1, 1)) for each in range(count)]


def keep_layers(model: PreTrainedModel, count: int, path: str) -> tuple[PreTrainedModel, str]:
    """Return a model of `count` layers with those of this one at equal distances and all else that it has; and a line.

    Raises:
        UserError: it has fewer layers, or not one stack of them.
    """
    there: Any = getattr(model.config, "num_hidden_layers", None)
    stacks = [name for name, each in model.named_modules() if _is_stack(each, there)]
    if len(stacks) != 1:
        raise UserError(
            f"model.layers: {type(model).__name__} is not one stack of layers to choose from; leave it out."
        )
    if not 1 <= count <= there:
        raise UserError(f"model.layers is {count}; {path} has {there}: give a number from 1 to that.")
    numbers, config = chosen_layers(count, there), copy.deepcopy(model.config)
    config.num_hidden_layers = count
    for name in OF_LAYERS:
        if (kinds := getattr(config, name, None)) is not None:
            setattr(config, name, [kinds[number] for number in numbers])
    small = type(model)._from_config(config, dtype=model.dtype)
    held, stack = model.state_dict(), f"{stacks[0]}."
    small.load_state_dict({name: held[_larger(name, stack, numbers)] for name in small.state_dict()})
    small.name_or_path = model.name_or_path
    if getattr(model, "generation_config", None) is not None:
        small.generation_config = model.generation_config
    return small, f"model.layers: {', '.join(str(each + 1) for each in numbers)} of the {there} layers of {path}."


def _is_stack(module: Any, there: int | None) -> bool:
    from torch import nn

    return isinstance(module, nn.ModuleList) and len(module) == there and len({type(each) for each in module}) == 1


def _larger(name: str, stack: str, numbers: list[int]) -> str:
    """Return what a weight of the small model is called in the large one."""
    if not name.startswith(stack):
        return name
    number, _, rest = name.removeprefix(stack).partition(".")
    return f"{stack}{numbers[int(number)]}.{rest}"
