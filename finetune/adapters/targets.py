"""Which layers an adapter changes, found in the model's own structure.

"auto" means every linear layer inside the repeated blocks, and of the pooler where the base has one; neither embeddings
nor head. With fewer (PEFT's defaults are query and value alone) LoRA falls behind full fine-tuning (Schulman et al.
2025, "LoRA Without Regret"), and a pooler that stays as it was starves the head: many bases never trained theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def block_linears(model: nn.Module, skip: list[str]) -> dict[str, nn.Module]:
    """Return {name: layer} of the linear layers (Linear, Conv1D) of blocks and pooler, without the modules `skip`."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return _inside_blocks(model, skip, lambda module: isinstance(module, nn.Linear | Conv1D))


def block_norms(model: nn.Module, skip: list[str]) -> dict[str, nn.Module]:
    """Return {name: layer} of the normalisation layers inside repeated blocks, without the modules `skip`."""
    return _inside_blocks(model, skip, lambda module: "norm" in type(module).__name__.lower())


def shortest_names(model: nn.Module, wanted: list[str]) -> list[str]:
    """Return few, short endings of names that match the `wanted` modules and no other, by PEFT's rule of matching."""
    every = [name for name, _ in model.named_modules()]
    found: set[str] = set()
    for name in wanted:
        parts = name.split(".")
        endings = (".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
        found.add(next(ending for ending in endings if set(matching(every, ending)) <= set(wanted)))
    return sorted(ending for ending in found if not any(ending.endswith(f".{other}") for other in found))


def matching(names: list[str], ending: str) -> list[str]:
    """Return the names that a target module of PEFT matches: itself, or a dot and it at the end."""
    return [name for name in names if name == ending or name.endswith(f".{ending}")]


def check_targets(model: nn.Module, targets: list[str], option: str) -> None:
    """Refuse a name that no module of the model has; name the nearest one."""
    every = [name for name, _ in model.named_modules() if name]
    for target in targets:
        if not matching(every, target):
            known = sorted({name.rsplit(".", 1)[-1] for name in block_linears(model, [])})
            near = did_you_mean(target, [*known, *every])
            raise UserError(
                f"{option}: {type(model).__name__} has no module {target}.{near} "
                f"Its linear layers: {', '.join(known)}; auto takes them all."
            )


def targeted(model: nn.Module, config: Any) -> list[nn.Module]:
    """Return the modules that a PEFT configuration points at, by PEFT's own rule."""
    from peft.tuners.tuners_utils import check_target_module_exists

    if config.target_modules is None:
        return []
    if isinstance(config.target_modules, str) and config.target_modules.lower() == "all-linear":
        return list(block_linears(model, []).values())
    return [module for name, module in model.named_modules() if name and check_target_module_exists(config, name)]


def _inside_blocks(model: nn.Module, skip: list[str], is_wanted: Callable[[nn.Module], bool]) -> dict[str, nn.Module]:
    from torch import nn

    lists = [f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    homes = (*lists, *(name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] == "pooler"))
    skipped = tuple(f"{name}." for name in skip)
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith(homes) and not f"{name}.".startswith(skipped) and is_wanted(module)
    }
