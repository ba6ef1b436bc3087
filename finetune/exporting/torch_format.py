"""`--to torch`: a torch.export program (.pt2), without the pickles that the format allows."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import CheckFailed, UserError
from finetune.exporting.onnx_graphs import quietly
from finetune.exporting.original import Original

FILE = "model.pt2"
KINDS = ("text-classification", "image-classification", "causal-lm")


class Program(nn.Module):
    """An exported program in the place of the model that it was made of; answers lie where the inputs do."""

    device = torch.device("cpu")

    def __init__(self, path: Path, config: Any) -> None:
        super().__init__()
        refuse_pickles(path)
        self.config = config
        self.loaded = (torch.export.load(path).module(),)  # no part of this: it cannot be told to train or to answer

    def forward(self, **inputs: Any) -> Any:
        """Return the logits, as the model does."""
        given = {name: each for name, each in inputs.items() if isinstance(each, Tensor)}
        found = self.loaded[0](**{name: each.to(self.device) for name, each in given.items()})
        return SimpleNamespace(logits=found.to(next(iter(given.values())).device))


class Logits(nn.Module):
    """A model that returns its logits alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> Tensor:
        """Return the logits; torch.export takes no **kwargs with free sizes, so the inputs are named."""
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "pixel_values": pixel_values,
        }
        return self.model(**{name: each for name, each in given.items() if each is not None}).logits


def write(original: Original, folder: Path) -> dict[str, Any]:
    """Write the program, with dynamic batch and length, and the tokenizer; return what stands in for the model.

    Raises:
        UserError: the task has no such export, or the model cannot be traced.
        CheckFailed: torch wrote a pickle into the file.
    """
    if original.kind not in KINDS:
        raise UserError(f"--to torch: {original.kind} has no such export; known: {', '.join(KINDS)}.")
    if getattr(original.recipe.task, "pack", False):
        raise UserError("--to torch: packed rows need a mask that no exported program takes; try --to onnx.")
    path = folder / FILE
    try:
        with quietly(), torch.no_grad():
            program = _traced(original)
            program.example_inputs = None  # they alone would be a pickle; None leaves an empty entry
            torch.export.save(program, path)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, KeyError, AttributeError) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(f"--to torch: {type(original.model).__name__} cannot be traced: {said}") from error
    original.processor.save_pretrained(folder)
    return {"torch": Program(path, original.model.config)}


def _traced(original: Original) -> torch.export.ExportedProgram:
    inputs = original.batch()
    if original.kind == "causal-lm":
        inputs = {name: inputs[name] for name in ("input_ids", "position_ids")}
    free = 1 if original.kind == "image-classification" else 2  # batch; batch and length
    axes = {name: dict.fromkeys(range(free), torch.export.Dim.AUTO) for name in inputs}
    return torch.export.export(Logits(original.model).eval(), (), kwargs=inputs, dynamic_shapes=axes, strict=False)


def refuse_pickles(path: Path) -> None:
    """Refuse a .pt2 file with a pickle in it: loading one can run code.

    A torch.export file is a zip of raw tensors and JSON; tensors and constants can be pickles where their entry in
    *_config.json says `use_pickle`, and sample inputs always are.

    Raises:
        CheckFailed: there is one.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if "/sample_inputs/" in entry.filename and entry.file_size:
                raise CheckFailed(f"{path}: {entry.filename} is a pickle, which can run code when it is read.")
            if entry.filename.endswith("_config.json") and _says_pickle(json.loads(archive.read(entry))):
                raise CheckFailed(f"{path}: {entry.filename} names pickles, which can run code when they are read.")


def _says_pickle(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("use_pickle")) or any(_says_pickle(each) for each in value.values())
    return isinstance(value, list) and any(_says_pickle(each) for each in value)
