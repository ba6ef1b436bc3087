"""A learning rate of their own for newly initialised modules."""

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
