"""Nested state (optimizer, schedule, random generators) as JSON and safetensors, with no pickle in between."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

Tree = Any  # what JSON can hold


def write_state(folder: Path, name: str, state: Any) -> None:
    """Write `state` as NAME.json, and its tensors as NAME.safetensors.

    Raises:
        TypeError: something in it is neither plain nor a tensor; names its place.
    """
    tensors: dict[str, Tensor] = {}
    tree = _plain(state, tensors, {}, name)
    (folder / f"{name}.json").write_text(json.dumps(tree, allow_nan=False), encoding="utf-8")
    if tensors:
        save_file(tensors, folder / f"{name}.safetensors")


def read_state(folder: Path, name: str) -> Any:
    """Read what `write_state` wrote, types and all; tensors come back on the CPU.

    Raises:
        ValueError: a tensor that it speaks of is not there.
    """
    tree = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return _restored(tree, read_tensors(folder / f"{name}.safetensors"))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, none where there is no file; ValueError when it is damaged."""
    try:
        return load_file(file) if file.exists() else {}
    except SafetensorError as error:
        raise ValueError(f"{file.name} cannot be read ({error})") from error


def has_state(folder: Path, name: str) -> bool:
    """Say whether `write_state` wrote this name there."""
    return (folder / f"{name}.json").exists()


def _plain(value: Any, tensors: dict[str, Tensor], known: dict[tuple, str], place: str) -> Tree:
    """Return the JSON of a value; containers and what JSON lacks become [kind, content]."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else ["float", repr(value)]
    if isinstance(value, np.ndarray):
        return ["array", _plain(torch.from_numpy(_storable(value)), tensors, known, place), str(value.dtype)]
    if isinstance(value, Tensor):
        held = value.detach()
        key = (held.device, held.data_ptr(), held.shape, held.stride(), held.dtype)  # shared tensors are kept once
        if key not in known or not held.numel():
            known[key] = place
            tensors[place] = held.cpu().contiguous()
        return ["tensor", known[key]]
    if isinstance(value, dict):
        items = [[each, _plain(inner, tensors, known, f"{place}.{each}")] for each, inner in value.items()]
        if all(isinstance(each, str | int) for each, _ in items):
            return ["dict", items]
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_plain(inner, tensors, known, f"{place}.{n}") for n, inner in enumerate(value)]]
    raise TypeError(f"{place} is {type(value).__name__}; a checkpoint holds plain values and tensors only")


def _storable(array: np.ndarray) -> np.ndarray:
    """Return the array in an integer type that torch has, bit for bit: numpy's generator counts in uint32."""
    return array.view(np.int32) if array.dtype == np.uint32 else array


def _restored(tree: Tree, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, content = tree[0], tree[1]
    if kind == "float":
        return float(content)
    if kind == "tensor":
        if content not in tensors:
            raise ValueError(f"{content} is missing")
        return tensors[content]
    if kind == "array":
        return _restored(content, tensors).numpy().view(tree[2])
    if kind == "dict":
        return {key: _restored(inner, tensors) for key, inner in content}
    values = [_restored(inner, tensors) for inner in content]
    return values if kind == "list" else tuple(values)
