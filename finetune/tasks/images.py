"""What the tasks on images share: rows of raw pixels into inputs, and inputs into batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.data.squares import shape_of
from finetune.errors import UserError, did_you_mean
from finetune.task import Encoded
from finetune.tasks import labels as label_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from datasets import Dataset
    from torch import Tensor

    from finetune.task import Batch

__all__ = [
    "Collate",
    "array_of",
    "class_number",
    "encode_images",
    "flipped",
    "in_turn",
    "normalisation",
    "resolve_shape",
    "shape_of",
]

FLIP = 0x666C6970  # the stream of random numbers that says which images are flipped


def resolve_shape(splits: dict[str, Dataset], image: str) -> tuple[int, int]:
    """Return (size, channels) of the images of all splits.

    Raises:
        UserError: there are no images, or those of two splits differ.
    """
    shapes = {name: shape_of(rows[image][0]) for name, rows in splits.items() if len(rows)}
    if not shapes:
        raise UserError("data.train: holds no images.")
    if len(set(shapes.values())) > 1:
        said = ", ".join(f"{name} {size} x {size} x {channels}" for name, (size, channels) in shapes.items())
        raise UserError(f"data.image: the splits have images of several shapes ({said}); give size and channels.")
    return next(iter(shapes.values()))


def flipped(pixel_values: Tensor, keys: Tensor) -> Tensor:
    """Return the images with every second one or so mirrored, left to right.

    Which ones is a function of the keys alone: the same however a batch is cut.

    Args:
        pixel_values: shape (batch, channels, height, width).
        keys: shape (batch,), int64, as `finetune.models.noise.keys` returns them.
    """
    from finetune.models.noise import uniform

    turn = uniform(keys, 1, FLIP)[:, 0] < 0.5
    return pixel_values.flip(-1).where(turn[:, None, None, None], pixel_values)


def normalisation(processor: Any) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation that an image processor takes of pixels from 0 to 1, by channel."""
    whole = 255 * processor.rescale_factor if getattr(processor, "do_rescale", True) else 255.0
    mean, std = processor.image_mean, processor.image_std
    if not getattr(processor, "do_normalize", True) or mean is None or std is None:
        return [0.0], [1 / whole]
    return [each / whole for each in mean], [each / whole for each in std]


def array_of(inputs: Dataset) -> np.ndarray:
    """Return the images of inputs as uint8 of shape (n, size, size, channels)."""
    import numpy as np

    images = inputs["image"][:]
    size, channels = shape_of(images[0])
    return np.frombuffer(b"".join(images), np.uint8).reshape(len(images), size, size, channels)


def encode_images(
    rows: Dataset, image: str, column: str | None = None, names: tuple[str, ...] = (), target: str | None = None
) -> Encoded:
    """Return inputs with `image` (bytes), `row`, `row_id`, `length` 1, and the class of `column` as its number.

    Args:
        rows: with the image as `Columns.image` describes it.
        image: the column of the image.
        column: the column of the class, or None; rows without it give inputs without it.
        names: the names of the classes, in the order of their numbers.
        target: what the inputs call the class, if not as the rows do.
    """
    import pyarrow as pa
    from datasets import Dataset as Table

    table: dict[str, Any] = {
        "image": rows.data.column(image).combine_chunks() if image in rows.column_names else None,
        "row": list(range(len(rows))),
        "row_id": rows["row_id"][:],
        "length": [1] * len(rows),
    }
    if column is not None and column in rows.column_names:
        of_class = label_rules.class_names(rows, column)
        batch = {"row_id": table["row_id"], column: rows[column][:]}
        table[target or column] = label_rules.targets_of(batch, column, names, "single", None, of_class)
    count = len(rows)
    facts = {"rows": count, "inputs": count, "tokens": count, "cut": 0, "cut_share": 0.0, "dropped": 0, "limit": 1}
    return Encoded(Table(pa.table(table)), facts)


def class_number(name: str, condition: str | None, names: Sequence[str]) -> int:
    """Return the number of a class that a generator was told; UserError for a run or a name that knows none."""
    if condition is None:
        raise UserError("--class: this run was told no classes; train it with task.condition: COLUMN.")
    if name not in names:
        shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        raise UserError(f"--class: {name!r} is not a class of this run: {shown}.{did_you_mean(name, names)}")
    return list(names).index(name)


def in_turn(count: int, condition: str | None, names: Sequence[str]) -> list[str] | None:
    """Return the classes of images in whose drawing they take turns; None for a run that was told none."""
    return None if condition is None else [names[place % len(names)] for place in range(count)]


@dataclass(frozen=True)
class Collate:
    """Makes a batch: `pixel_values` float32 (batch, channels, size, size), (pixel / 255 - mean) / std."""

    mean: float | Sequence[float]  # one for all channels, or one a channel
    std: float | Sequence[float]
    column: str | None = None  # of the inputs: the class
    name: str = "labels"  # what the model calls it; "condition" for a generative one

    def __call__(self, inputs: list[dict[str, Any]]) -> Batch:
        import torch

        from finetune.training.batching import carried

        size, channels = shape_of(inputs[0]["image"])
        raw = torch.frombuffer(bytearray(b"".join(each["image"] for each in inputs)), dtype=torch.uint8)
        turned = raw.view(len(inputs), size, size, channels).permute(0, 3, 1, 2)
        # A copy with plain strides: torch convolves one with others in other sums, and a saved batch has these.
        pixels = turned.clone(memory_format=torch.contiguous_format).float() / 255
        mean, std = (torch.tensor(each, dtype=torch.float32).view(-1, 1, 1) for each in (self.mean, self.std))
        batch: Batch = {"pixel_values": (pixels - mean) / std, **carried(inputs)}
        if self.column is not None and self.column in inputs[0]:
            batch[self.name] = torch.tensor([each[self.column] for each in inputs])
        return batch
