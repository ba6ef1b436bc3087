"""What a run draws, written for people: images as one grid or one file each, texts as rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from finetune import artefact
from finetune.errors import UserError
from finetune.task import Picture

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

    from finetune.task import Generated, Processor, Task

STEPS = 10  # of a walk
IMAGES, TEXTS, WALKS = 64, 8, 8  # where no number was asked for


def draw(
    task: Task, model: PreTrainedModel, processor: Processor, kind: str, count: int | None, seed: int
) -> tuple[Generated, int]:
    """Return what was drawn, and how many stand in a line of a grid; the global random numbers stay as they were.

    Args:
        task, model, processor: of a run; the model in evaluation mode.
        kind: the task's method: "generate", "interpolate" or "traverse".
        count: how many, or how many walks; None for the usual number.
        seed: of the draw.
    """
    import torch

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        if kind == "interpolate":
            return task.interpolate(model, processor, count or WALKS, STEPS, seed), STEPS
        if kind == "traverse":
            return task.traverse(model, processor, STEPS, seed), STEPS
        number = count or (TEXTS if task.columns().image is None else IMAGES)
        return task.generate(model, processor, number, seed), math.ceil(math.sqrt(number))


def write_texts(texts: list[str], grid: Path | None, output: Path | None) -> list[str]:
    """Write a row {"text": …} for each text where an output is given, and return them."""
    if grid is not None:
        raise UserError("--grid: this run writes texts; leave it out, or give --output FILE.jsonl.")
    if output is not None:
        if output.suffix != ".jsonl":
            raise UserError(f"--output: {output} should end in .jsonl for texts.")
        _check_parent("--output", output)
        rows = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
        output.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return texts


def write_images(images: np.ndarray, columns: int, grid: Path | None, output: Path | None, usual: Path) -> Path:
    """Write images as one grid, or each as a PNG into the folder `output`, or both; return the path.

    Args:
        images: uint8, shape (n, size, size, channels).
        columns: of the grid.
        grid, output: where asked for.
        usual: the grid's path where neither is given.
    """
    from PIL import Image

    from finetune.evaluation import grids

    if output is not None:
        if output.suffix or output.is_file():
            raise UserError(f"--output: {output} should be a folder for images; --grid names one PNG of them all.")
        _check_parent("--output", output)
        output.mkdir(exist_ok=True)
        digits = len(str(len(images)))
        for number, image in enumerate(images, start=1):
            pixels = image[..., 0] if image.shape[-1] == 1 else image
            Image.fromarray(pixels).save(output / f"{number:0{digits}}.png")
    if grid is None and output is not None:
        return output
    path = grid or usual
    if path.suffix.lower() != ".png":
        raise UserError(f"--grid: {path} should end in .png.")
    if grid is None:
        path.parent.mkdir(exist_ok=True)
    _check_parent("--grid", path)
    artefact.write_picture(Picture(grids.grid(images, columns), f"{len(images):,} images."), path)
    return path


def _check_parent(option: str, path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError(f"{option}: {path} cannot be written: there is no folder {path.parent}.")
