"""Whether a configuration and the weights beside it are of one model: how much it describes, and how many layers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.foreign.files import INDEX, read_object, weight_files
from finetune.loading.options import ModelOptions
from finetune.loading.source import Source

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SLACK = 1 << 26  # weights that a configuration may describe beyond four times those of its files: 256 MB of float32


def files_of(source: Source, option: str) -> list[Path]:
    """Return the files that hold the weights of a source, fetched where they lie on the Hub; [] for unknown ones."""
    if source.gguf_file is not None:
        found = source.file(source.gguf_file)
        return [] if found is None else [found]
    if source.folder is not None:
        return weight_files(source.folder, option)
    if (whole := source.file("model.safetensors")) is not None:
        return weight_files(whole.parent, option)
    index = source.file(INDEX)
    names = sorted(set(read_object(index)["weight_map"].values())) if index is not None else []
    fetched = [source.file(name) for name in names]
    return weight_files(index.parent, option) if index is not None and all(fetched) else []


def check_described(auto_class: Any, config: PreTrainedConfig, files: list[Path], options: ModelOptions) -> None:
    """Refuse a configuration that describes far more weights than its files hold, before they are allocated.

    Raises:
        UserError: it does; the line holds both counts.
    """
    import torch
    from safetensors import safe_open

    if not files or files[0].suffix != ".safetensors":
        return
    held = 0
    for file in files:
        with safe_open(file, framework="pt") as opened:
            held += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    with torch.device("meta"):
        model = auto_class.from_config(config)
    described = sum(weight.numel() for weight in model.parameters())
    if described > 4 * held + SLACK:
        raise UserError(
            f"model.path: config.json of {options.path} describes {described:,} weights, and its files hold {held:,}; "
            "one of them is of another model."
        )


def check_layers(model: PreTrainedModel, missing: list[str], unexpected: list[str], options: ModelOptions) -> None:
    """Refuse weights of fewer or more layers than the configuration counts; both would load in silence.

    Raises:
        UserError: a whole layer is missing in the files, or they hold one that the model has not.
    """
    from torch import nn

    known = dict(model.named_modules())
    lost = set(missing)
    for name, module in known.items():
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        for number, layer in enumerate(module):
            held = {f"{name}.{number}.{inner}" for inner, _ in layer.named_parameters()}
            if held and held <= lost and number:
                raise UserError(
                    f"model.path: config.json of {options.path} counts {len(module)} layers in {name}, and the files "
                    f"hold {number}; one of them is of another model."
                )
    for key in unexpected:
        parts = key.split(".")
        for place, part in enumerate(parts):
            owners = [".".join(parts[:place]), f"{model.base_model_prefix}.{'.'.join(parts[:place])}"]
            lists = [known[owner] for owner in owners if isinstance(known.get(owner), nn.ModuleList)]
            if part.isdigit() and lists and int(part) >= len(lists[0]) > 0:
                raise UserError(
                    f"model.path: config.json of {options.path} counts {len(lists[0])} layers in "
                    f"{owners[0]}, and the files hold {key}; one of them is of another model."
                )
