"""What a run draws, written for people: images as one grid or one file each, texts as rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    task: Task,
    model: PreTrainedModel,
    processor: Processor,
    kind: str,
    count: int | None,
    seed: int,
    only: str | None = None,
) -> tuple[Generated, int]:
    """Return what was drawn, and how many stand in a line of a grid; the global random numbers stay as they were.

    Args:
        task, model, processor: of a run; the model in evaluation mode.
        kind: the task's method: "generate", "interpolate" or "traverse".
        count: how many, or how many walks; None for the usual number.
        seed: of the draw.
        only: the class that all are of, for "generate".
    """
    import torch

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        if kind == "interpolate":
            return task.interpolate(model, processor, count or WALKS, STEPS, seed), STEPS
        if kind == "traverse":
            return task.traverse(model, processor, STEPS, seed), STEPS
        number = count or (TEXTS if task.columns().image is None else IMAGES)
        columns = math.ceil(math.sqrt(number))
        if only is not None:
            return task.generate_class(model, only, number, seed), columns
        return task.generate(model, processor, number, seed), columns


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
            raise UserError(
                f"--output: {output} should be a folder for images, or end in .npz to train on them; --grid names one "
                "PNG of them all."
            )
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


def write_arrays(images: np.ndarray, labels: list[str] | None, task: Task, mark: np.ndarray, output: Path) -> Path:
    """Write images, and their classes, as an NPZ file under the columns that the task reads; return its path.

    Args:
        images: uint8, shape (n, size, size, channels).
        labels: a name an image, or None; names that are whole numbers are written as numbers.
        task: whose columns they are.
        mark: says that they were generated, see finetune.data.generated.
        output: ends in .npz.
    """
    import numpy as np

    from finetune.data.generated import MARK
    from finetune.data.labels import INTEGER

    _check_parent("--output", output)
    columns = task.columns()
    arrays: dict[str, Any] = {str(columns.image): images if images.shape[-1] == 3 else images[..., 0], MARK: mark}
    if labels is not None:
        whole = all(INTEGER.fullmatch(name) for name in labels)
        arrays[str(columns.label)] = np.array([int(name) for name in labels] if whole else labels)
    with output.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return output


def _check_parent(option: str, path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError(f"{option}: {path} cannot be written: there is no folder {path.parent}.")
