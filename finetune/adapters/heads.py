"""New modules: what the checkpoint did not bring must be trained, and saved with the adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def new_modules(model: nn.Module, new_parameters: list[str]) -> list[str]:
    """Return the names of the fewest, outermost modules that hold all of the new parameters and no other.

    RoBERTa's `classifier.dense` and `classifier.out_proj` give `classifier`; BERT's pooler and classifier give both. A
    module that also holds weights of the checkpoint is taken as a whole when the new parameter is its very own.

    Raises:
        UserError: a new parameter belongs to the model itself, so that no module can be saved for it.
    """
    new = set(new_parameters)
    found: list[str] = []
    for name, module in model.named_modules():  # parents come first
        if any(name.startswith(f"{other}.") for other in found):
            continue
        inside = {f"{name}.{inner}" for inner, _ in module.named_parameters()} if name else set()
        own = {f"{name}.{inner}" for inner, _ in module.named_parameters(recurse=False)}
        if (inside and inside <= new) or own & new:
            found.append(name)
    left = [name for name in sorted(new) if not name.startswith(tuple(f"{each}." for each in found))]
    if left:
        raise UserError(f"adapter: the new weight {left[0]} is part of no module that could be saved with an adapter.")
    return found


def saved_names(model: nn.Module, modules: list[str]) -> list[str]:
    """Return names under which PEFT wraps exactly these modules: it compares the ends of names, without a dot.

    "head" would match "lm_head" too; then the module is written as "model.head", as it stands inside PEFT's wrapper.
    """
    every = [f"base_model.model.{name}" for name, _ in model.named_modules() if name]
    names = []
    for module in modules:
        exact = f"base_model.model.{module}"
        endings = [module, f"model.{module}", exact]
        names.append(next(name for name in endings if [each for each in every if each.endswith(name)] == [exact]))
    return names
