"""Several LoRA adapters of one base made into one, and that merged into the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.adapters.attaching import first_line, without_noise
from finetune.errors import UserError
from finetune.foreign.adapters import check_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

COMBINED = "combined"

# PEFT's names. `cat` is the weighted sum of the updates itself; `svd` its nearest update of the greatest single rank.
# `linear`, `ties`, `dare_linear` and `dare_ties` work on the two factors apart, and the products of one's factor with
# another's come in; with `_svd` they work on the updates, as Yadav et al. 2023 (arXiv:2306.01708) and Yu et al. 2024
# (arXiv:2311.03099) do, cut to the greatest single rank.
METHODS = (
    "cat", "svd", "linear", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd",
)  # fmt: skip
NOT_COMBINED = {"use_dora": False, "bias": "none", "lora_bias": False, "target_parameters": None}


@dataclass(frozen=True)
class Combination:
    """How adapters are combined."""

    weights: tuple[float, ...]  # one an adapter
    method: str = "cat"
    density: float = 0.5  # share of the values that ties and dare keep
    head: int | None = None  # the adapter whose new modules are taken; None: their average by the weights


def combine(
    base: PreTrainedModel, folders: Sequence[Path], how: Combination
) -> tuple[PreTrainedModel, list[str], float]:
    """Return the base with the combination of the adapters merged in.

    Args:
        base: with new modules of the size that they have in the adapters whose head is taken.
        folders: of adapters that PEFT saved, all LoRA.
        how: with a weight for each.

    Returns:
        The model, the names of the parameters that the adapters' new modules brought, and how far the combined update
        lies from the weighted sum of the updates, as a share of that sum's norm.

    Raises:
        UserError: an adapter is no LoRA, has an option that does not go into a combination, or fits another base.
    """
    from peft import PeftModel

    names = [f"adapter{number}" for number in range(len(folders))]
    heads: list[dict[str, Tensor]] = []
    attached: Any = None
    try:
        with without_noise():
            for name, folder in zip(names, folders, strict=True):
                config, tensors = _read(folder)
                if attached is None:
                    attached = PeftModel(base, config, adapter_name=name)
                else:
                    attached.add_adapter(name, config)
                heads.append({each: tensors.pop(each) for each in list(tensors) if "lora_" not in each})
                _place(attached, name, tensors, folder)
            attached.add_weighted_adapter(
                names, list(how.weights), COMBINED, combination_type=how.method, density=how.density
            )
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"--method {how.method}: the adapters cannot be combined: {first_line(error)}") from error
    departure = _departure(attached, names, how.weights)
    attached.set_adapter(COMBINED)
    merged = attached.merge_and_unload(adapter_names=[COMBINED])
    return merged, _place_heads(merged, heads, how), departure


def _read(folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return the configuration, without its new modules, and all tensors of an adapter."""
    from peft import LoraConfig, PeftConfig
    from safetensors.torch import load_file

    check_adapter(folder, str(folder))
    config: Any = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise UserError(f"{folder}: only LORA adapters are combined, and this is {kind}.")
    for option, plain in NOT_COMBINED.items():
        if getattr(config, option, plain) not in (plain, None):
            raise UserError(f"{folder}: an adapter with {option} {getattr(config, option)} cannot be combined.")
    config = replace(config, modules_to_save=None, task_type=None, inference_mode=True)
    return config, load_file(folder / "adapter_model.safetensors")


def _place(attached: PeftModel, name: str, tensors: dict[str, Tensor], folder: Path) -> None:
    from peft import set_peft_model_state_dict

    result: Any = set_peft_model_state_dict(attached, tensors, adapter_name=name)
    lost = [key for key in result.missing_keys if f".{name}." in key and "lora_" in key]
    for key in (*result.unexpected_keys, *lost):
        raise UserError(f"{folder}: its adapter is not one of this base: {key} has no match.")


def _departure(attached: PeftModel, names: list[str], weights: Sequence[float]) -> float:
    """Return the Frobenius norm of (combined update - weighted sum of updates), as a share of that of the sum."""
    import torch
    from peft.tuners.lora import LoraLayer

    apart, whole = 0.0, 0.0
    for module in attached.modules():
        if not isinstance(module, LoraLayer) or COMBINED not in module.scaling:
            continue
        layer: Any = module
        layer.scaling[COMBINED] = 1.0  # PEFT's factors hold every scale; its own, with use_rslora, is not 1
        with torch.no_grad():
            here = [(name, weight) for name, weight in zip(names, weights, strict=True) if name in module.scaling]
            wanted = torch.stack([weight * layer.get_delta_weight(name) for name, weight in here]).sum(dim=0)
            apart += float((layer.get_delta_weight(COMBINED) - wanted).square().sum())
            whole += float(wanted.square().sum())
    return (apart / whole) ** 0.5 if whole else 0.0


def _place_heads(merged: PreTrainedModel, heads: list[dict[str, Tensor]], how: Combination) -> list[str]:
    """Put the adapters' new modules into the model, averaged or one's own; return the names of their parameters."""
    import torch

    if how.head is not None:
        chosen = heads[how.head]
    else:
        if any(head.keys() != heads[0].keys() for head in heads):
            raise UserError("the adapters bring different new modules; say with --head which run's are taken.")
        total = sum(how.weights)
        if heads[0] and abs(total) < 1e-6:
            raise UserError("--weights sum to 0, and heads have no average by them; say with --head whose is taken.")
        pairs = list(zip(how.weights, heads, strict=True))
        chosen = {key: sum(weight * head[key] for weight, head in pairs) / total for key in heads[0]}  # type: ignore[misc]
    names = []
    with torch.no_grad():
        for key, tensor in chosen.items():
            name = key.removeprefix("base_model.model.")
            merged.get_parameter(name).copy_(tensor)
            names.append(name)
    return names
