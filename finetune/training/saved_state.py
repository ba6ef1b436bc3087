"""What a checkpoint keeps of a process besides the optimizer: trained weights and random generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from finetune.errors import CheckFailed
from finetune.training.packing import read_tensors


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes, by name: trained parameters and persistent buffers, tied ones once.

    The frozen rest is the base model's, which a resumed run loads again.
    """
    changing = {name for name, each in model.named_parameters(remove_duplicate=False) if each.requires_grad}
    changing |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    kept: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in changing:
            kept.setdefault(id(tensor), (name, tensor))
    return dict(kept.values())


def size(model: nn.Module, optimizer: Any, name: str) -> int:
    """Return about how many bytes a checkpoint has: weights, moments of each (or what there is), and a little.

    Before the first step there are none yet: `name`, the option `optim`, says how many are to come.
    """
    moments = 0 if name == "sgd" else 2  # transformers' SGD has no momentum
    weights = sum(each.nbytes for each in trained_state(model).values())
    kept = [each for state in getattr(optimizer, "state", {}).values() for each in state.values()]
    known = sum(each.nbytes for each in kept if isinstance(each, Tensor))
    return weights + (known or moments * weights) + 2**18


def save_weights(folder: Path, model: nn.Module) -> None:
    """Write `trained_state` as one safetensors file."""
    weights = {name: each.detach().cpu().contiguous() for name, each in trained_state(model).items()}
    save_file(weights, folder / _file(model), metadata={"format": "pt"})


def check_weights(held: dict[str, Tensor], live: dict[str, Tensor]) -> None:
    """Raise ValueError when names or shapes are not those of the living model, or a number is none."""
    for name in sorted(held.keys() | live.keys()):
        if name not in held or name not in live or held[name].shape != live[name].shape:
            raise ValueError(f"it is of another model: {name} is not the same there")
    for name, tensor in held.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} has numbers that are not finite")


def read_weights(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """Return what `save_weights` wrote; ValueError says why it does not fit the model."""
    held = read_tensors(folder / _file(model))
    check_weights(held, trained_state(model))
    return held


def load_weights(folder: Path, model: nn.Module) -> None:
    """Put what `save_weights` wrote back in place; CheckFailed when it does not fit."""
    live = trained_state(model)
    with fitting(folder):
        held = read_weights(folder, model)
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(held[name])


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Turn what says that a checkpoint's weights do not fit into CheckFailed."""
    try:
        yield
    except ValueError as error:
        raise CheckFailed(f"{folder} cannot be loaded: {error}.") from error


def _file(model: nn.Module) -> str:
    whole = all(each.requires_grad for each in model.parameters())
    return "model.safetensors" if whole else "trained.safetensors"


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every random generator of this process."""
    own: dict[str, Any] = {}
    if device.type != "cpu":
        own = {"device": torch.get_device_module(device).get_rng_state(), "device_type": device.type}
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state(), **own}  # noqa: NPY002


def restore_random(state: dict[str, Any], device: torch.device) -> None:
    """Put every generator back to what `random_state` returned, but for that of another kind of device."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state.get("device_type") == device.type:
        torch.get_device_module(device).set_rng_state(state["device"])
