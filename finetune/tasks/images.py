"""What the tasks on images share: rows of raw pixels into inputs, and inputs into batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.task import Encoded

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.task import Batch


def shape_of(image: bytes) -> tuple[int, int]:
    """Return (size, channels) of a square image of uint8: no length is a square and three times a square."""
    for channels in (1, 3):
        size = math.isqrt(len(image) // channels)
        if size * size * channels == len(image):
            return size, channels
    raise ValueError(f"{len(image)} bytes are no square image of one or three channels")


def encode_images(rows: Dataset, image: str, column: str | None = None, names: tuple[str, ...] = ()) -> Encoded:
    """Return inputs with `image` (bytes), `row`, `row_id`, `length` 1, and the class of `column` as its number.

    Args:
        rows: with the image as `Columns.image` describes it.
        image: the column of the image.
        column: the column of the class, or None; rows without it give inputs without it.
        names: the names of the classes, in the order of their numbers.
    """
    from datasets import Dataset as Table

    table: dict[str, Any] = {
        "image": rows.data.column(image).combine_chunks() if image in rows.column_names else None,
        "row": list(range(len(rows))),
        "row_id": rows["row_id"][:],
        "length": [1] * len(rows),
    }
    if column is not None and column in rows.column_names:
        number = {name: place for place, name in enumerate(names)}
        table[column] = [number[str(each)] for each in rows[column]]
    count = len(rows)
    facts = {"rows": count, "inputs": count, "tokens": count, "cut": 0, "cut_share": 0.0, "dropped": 0, "limit": 1}
    import pyarrow as pa

    return Encoded(Table(pa.table(table)), facts)


@dataclass(frozen=True)
class Collate:
    """Makes a batch: `pixel_values` float32 (batch, channels, size, size), (pixel / 255 - mean) / std."""

    mean: float
    std: float
    column: str | None = None  # of the inputs: the class
    name: str = "labels"  # what the model calls it; "condition" for a generative one

    def __call__(self, inputs: list[dict[str, Any]]) -> Batch:
        import torch

        from finetune.training.batching import carried

        size, channels = shape_of(inputs[0]["image"])
        raw = torch.frombuffer(bytearray(b"".join(each["image"] for each in inputs)), dtype=torch.uint8)
        pixels = raw.view(len(inputs), size, size, channels).permute(0, 3, 1, 2).float() / 255
        batch: Batch = {"pixel_values": ((pixels - self.mean) / self.std).contiguous(), **carried(inputs)}
        if self.column is not None and self.column in inputs[0]:
            batch[self.name] = torch.tensor([each[self.column] for each in inputs])
        return batch
