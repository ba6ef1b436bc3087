"""What an image is as a row: the bytes of a square, size * size * channels numbers of 8 bits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from finetune.data.options import SIZES, ImageOptions
from finetune.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from finetune.data.chunks import Findings
    from finetune.data.reading import Read


def shape_of(image: bytes | int) -> tuple[int, int]:
    """Return (size, channels) of a square image, or of its number of bytes.

    There is one answer at most: no number is a square and three times a square.
    """
    count = image if isinstance(image, int) else len(image)
    for channels in (1, 3):
        size = math.isqrt(count // channels)
        if size and size * size * channels == count:
            return size, channels
    raise ValueError(f"{count} bytes are no square image of one or three channels")


def settle_images(reads: list[Read], image: str, given: ImageOptions) -> tuple[ImageOptions, list[str]]:
    """Give the images of all files one size and one number of channels, in place.

    Returns:
        The options with the size and the channels that all images have now, and sentences for the reader.

    Raises:
        UserError: they have several sizes, or one that is too small or too large.
    """
    import pyarrow.compute as compute

    first: dict[int, str] = {}  # bytes of an image: the first row that has so many
    for read in reads:
        lengths = compute.binary_length(read.table.column(image)).to_pylist()
        for at, length in enumerate(lengths):
            if length not in first:
                first[length] = read.table.column("row_id")[at].as_py()
    if not first:
        return given, []
    shapes = {row_id: shape_of(length) for length, row_id in first.items()}
    sizes: dict[int, str] = {}
    for row_id, (size, _) in shapes.items():
        sizes.setdefault(size, row_id)
    if len(sizes) > 1:
        (one, where), (other, there) = list(sizes.items())[:2]
        raise UserError(
            f"{there}: is {other} x {other} pixels where {where} is {one} x {one}; "
            "say data.image: {size: N} to make all N x N"
        )
    size, row_id = sizes.popitem()
    if not SIZES[0] <= size <= SIZES[1]:
        near = min(max(size, SIZES[0]), SIZES[1])
        raise UserError(
            f"{row_id}: is {size} x {size} pixels, and a side may have {SIZES[0]} to {SIZES[1]}; "
            f"say data.image: {{size: {near}}} to resize the images"
        )
    channels: Literal[1, 3] = 3 if any(channels == 3 for _, channels in shapes.values()) else 1
    notes = [with_colour(read, image, size) for read in reads] if channels == 3 else []
    notes += [note for read in reads if (note := dark(read, image))]
    return replace(given, size=size, channels=channels), [note for note in notes if note]


def with_colour(read: Read, image: str, size: int) -> str:
    """Give a file's grey images three equal channels, in place; return a sentence on it, or ""."""
    import numpy as np
    import pyarrow as pa

    images = read.table.column(image).to_pylist()
    grey = sum(len(each) == size * size for each in images)
    if not grey:
        return ""
    colour = [
        np.repeat(np.frombuffer(each, np.uint8), 3).tobytes() if len(each) == size * size else each for each in images
    ]
    column: pa.Array = pa.array(colour, pa.large_binary())
    read.table = read.table.set_column(read.table.column_names.index(image), image, column)
    return f"{read.piece.place}: {grey:,} images are grey where others have colour; they get three equal channels"


def dark(read: Read, image: str) -> str:
    """Return a sentence where no pixel of a file is brighter than 16 of 255: its numbers have another scale."""
    import numpy as np

    images = read.table.column(image).to_pylist()
    brightest = max((int(np.frombuffer(each, np.uint8).max()) for each in images), default=255)
    if brightest > 16:
        return ""
    return f"{read.piece.place}: no pixel is above {brightest} of 255; if {brightest} means white, scale the images"


def remarked(findings: Findings) -> list[str]:
    """Return a sentence for each thing that was done to images of a file."""
    return [f"{place}: {count:,} images {said}" for (place, said), count in findings.remarks.items()]
