"""Images side by side in one picture."""

from __future__ import annotations

import numpy as np

BACKGROUND = 128  # grey: seen beside black and beside white images


def grid(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Return images tiled row by row, as uint8 of shape (height, width, 3).

    Args:
        images: uint8, shape (n, height, width, channels) with 1 or 3 channels, or (n, height, width) for grey.
        columns: images a line; the last line is filled up with grey.
        gap: pixels of grey between images.

    Raises:
        ValueError: there is no image, or the shape or type is another.
    """
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise ValueError(f"{images.dtype} of shape {images.shape} are no images of uint8 with 1 or 3 channels")
    count, height, width, _ = images.shape
    columns = max(1, min(columns, count))
    lines = -(-count // columns)
    size = (lines * (height + gap) - gap, columns * (width + gap) - gap, 3)
    pixels = np.full(size, BACKGROUND, dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        pixels[top : top + height, left : left + width] = image
    return pixels
