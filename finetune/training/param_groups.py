"""What of a model is trained, and at what rate: by the depth of its layers, and for newly initialised modules."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from finetune.errors import UserError


def head_names(model: nn.Module, new_parameters: Sequence[str]) -> set[str]:
    """Return the names of the trained parameters that belong to newly initialised modules.

    Args:
        model: with or without an adapter; PEFT renames what it keeps a copy of ("modules_to_save").
        new_parameters: names as the model had them before an adapter.
    """
    new = set(new_parameters)
    trained = (name for name, each in model.named_parameters() if each.requires_grad)
    return {name for name in trained if name.removeprefix("base_model.model.") in new or ".modules_to_save." in name}


def give_head_its_own_rate(optimizer: Optimizer, model: nn.Module, new_parameters: Sequence[str], rate: float) -> None:
    """Split the optimizer's groups in two, keeping each one's weight decay; the head's half learns at `rate`.

    Raises:
        UserError: no newly initialised parameter is trained, or the optimizer has no groups to split.
    """
    names = head_names(model, new_parameters)
    if not names:
        raise UserError("train.head_learning_rate: no newly initialised module is trained here. Leave it out.")
    if not getattr(optimizer, "param_groups", None) or optimizer.state:
        raise UserError(f"train.head_learning_rate does not work with {type(optimizer).__name__}. Leave it out.")
    head = {id(each) for name, each in model.named_parameters() if name in names}
    groups = []
    for group in optimizer.param_groups:
        for inside, own in ((False, {}), (True, {"lr": rate})):
            params = [each for each in group["params"] if (id(each) in head) is inside]
            if params:
                groups.append({**group, **own, "params": params})
    optimizer.param_groups[:] = groups


def depths(model: nn.Module) -> tuple[dict[str, int], int]:
    """Return how deep each parameter lies, and the number of blocks: 0 embeddings, 1 the first block, … heads above.

    A block is one of a `ModuleList` of modules of one class that hold others of their kind in none of them: what
    every family of transformers keeps its layers in, and an encoder-decoder two of.

    Raises:
        UserError: the model has no such list.
    """
    lists = {
        name: len(each)
        for name, each in model.named_modules()
        if isinstance(each, nn.ModuleList) and len(each) > 1 and len({type(part) for part in each}) == 1
    }
    outer = {name: count for name, count in lists.items() if not any(name.startswith(f"{each}.") for each in lists)}
    if not outer:
        raise UserError("train.layer_decay and train.freeze_layers need blocks of layers, and this model has none.")
    most = max(outer.values())
    found: dict[str, int] = {}
    below = True  # what is made before the first block is what the blocks read
    for name, _ in model.named_parameters():
        inside = next((each for each in outer if name.startswith(f"{each}.")), None)
        if inside is not None:
            below = False
            found[name] = int(name.removeprefix(f"{inside}.").split(".")[0]) + 1 + most - outer[inside]
        else:
            found[name] = 0 if below else most + 1
    return found, most


def freeze(model: nn.Module, layers: int) -> None:
    """Keep the embeddings and the lowest blocks of layers, with what an adapter added to them, as they are.

    Raises:
        UserError: there are fewer blocks, or nothing would be left to train.
    """
    if not layers:
        return
    found, most = depths(model)
    if layers > most:
        raise UserError(f"train.freeze_layers is {layers}, and this model has {most} blocks of layers.")
    for name, parameter in model.named_parameters():
        if found[name] <= layers:
            parameter.requires_grad_(False)
    if not any(each.requires_grad for each in model.parameters()):
        raise UserError(f"train.freeze_layers: with {layers} blocks frozen nothing is left to train.")


def decay_by_layer(optimizer: Optimizer, model: nn.Module, share: float) -> None:
    """Split the optimizer's groups by depth; a block learns at `share` of the rate of the one above it.

    Layer-wise rates of Howard & Ruder 2018 (arXiv:1801.06146): what lies above all blocks has the full rate.

    Raises:
        UserError: the model has no blocks, or the optimizer no groups to split.
    """
    if not getattr(optimizer, "param_groups", None) or optimizer.state:
        raise UserError(f"train.layer_decay does not work with {type(optimizer).__name__}. Leave it out.")
    found, most = depths(model)
    depth = {id(each): found[name] for name, each in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        by_depth: dict[int, list[nn.Parameter]] = {}
        for each in group["params"]:
            by_depth.setdefault(depth[id(each)], []).append(each)
        for level, params in sorted(by_depth.items()):
            groups.append({**group, "lr": group["lr"] * share ** (most + 1 - level), "params": params})
    optimizer.param_groups[:] = groups
