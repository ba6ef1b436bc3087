"""From what a file holds (an encoded image, a path, an array, a list) to the pixels of a square."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from finetune.data.faults import shown
from finetune.data.files import nearest_file
from finetune.data.options import ImageOptions

MOST_PIXELS = 50_000_000  # of an encoded image: a few kB can unpack into gigabytes
GREY = ("1", "L")
COLOUR = ("RGB", "P", "YCbCr", "HSV")
TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
# What Pillow's readers raise on damaged files; each format fails in its own way.
DAMAGED = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, AttributeError, EOFError,
           OverflowError, ZeroDivisionError, struct.error, zlib.error)  # fmt: skip

Remark = Callable[[str], None]  # counts an image of which something is said: "were resized to 28 x 28"


class Unfit(ValueError):
    """An image that cannot be used; the message goes on from the column's name."""


def square(value: Any, folder: Path, options: ImageOptions, remark: Remark) -> bytes:
    """Return the pixels of one image as bytes, row by row, channels last.

    Args:
        value: an encoded image, a path from `folder`, {"bytes", "path"}, an array or nested lists.
        folder: where relative paths begin.
        options: the size and the channels that are wanted; the image's own where they are None.
        remark: is told what was done to the image.

    Raises:
        Unfit: says what is wrong, and what to do.
    """
    if isinstance(value, dict) and {"bytes", "path"} & set(value):  # datasets' Image feature
        value = value.get("bytes") or value.get("path")
    if value is None:
        raise Unfit("is null; it must hold an image")
    if isinstance(value, str | bytes):
        pixels = decoded(value, folder, options.background, remark)
    else:
        pixels = from_array(value, options.background, remark)
    if 0 in pixels.shape:
        raise Unfit(f"holds no pixels: its shape is {shown(pixels.shape)}")
    return fitted(pixels, options, remark).tobytes()


def decoded(value: str | bytes, folder: Path, background: str, remark: Remark) -> np.ndarray:
    """Return the pixels of an encoded image, or of the file at a path: uint8, (height, width, 1 or 3)."""
    if isinstance(value, str):
        path = folder / value
        if not path.is_file():
            raise Unfit(f"names {shown(value)}, and there is no such file.{nearest_file(str(path))}")
        value = path.read_bytes()
    if not value:
        raise Unfit("is empty: 0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow on odd metadata; bombs are refused below, by their size
        try:
            return opened(value, background, remark)
        except Unfit:
            raise
        except Image.DecompressionBombError as error:
            raise Unfit("would unpack into more pixels than any image here may have; it is left unread") from error
        except DAMAGED as error:
            said = str(error).split("\n")[0] or type(error).__name__
            said = "its format is not known" if isinstance(error, UnidentifiedImageError) else said
            raise Unfit(f"is no whole image that can be read: {said}") from error


def opened(raw: bytes, background: str, remark: Remark) -> np.ndarray:
    """Return what `decoded` returns; raises what Pillow raises."""
    image: Image.Image = Image.open(io.BytesIO(raw))
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise Unfit(f"has {width} x {height} pixels; more than {MOST_PIXELS:,} are not read")
    if image.mode[0] in "IF" or ";16" in str(getattr(image, "tile", "")):
        raise Unfit("has more than 8 bits a channel; save it with 8 bits, on the scale that is meant")
    if image.mode == "CMYK":
        raise Unfit("is CMYK, colours for print that a profile must translate; save it as RGB")
    if getattr(image, "n_frames", 1) > 1:
        remark("have several frames, of which the first is taken")
    turned = image.getexif().get(0x0112, 1) not in (0, 1)
    image.load()
    if turned:
        remark("were turned upright by their EXIF orientation")
        image = ImageOps.exif_transpose(image)
    if image.mode in TRANSPARENT or "transparency" in image.info:
        return np.asarray(over_background(image, background))
    if image.mode in GREY:
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode in COLOUR:
        return np.asarray(image.convert("RGB"))
    raise Unfit(f"has the mode {image.mode}, which is not known here; save it as RGB")


def over_background(image: Image.Image, background: str) -> Image.Image:
    """Return an image without transparency."""
    clear = image.convert("RGBA")
    behind = Image.new("RGBA", clear.size, (*ImageColor.getrgb(background)[:3], 255))
    return Image.alpha_composite(behind, clear).convert("RGB")


def from_array(value: Any, background: str, remark: Remark) -> np.ndarray:
    """Return the pixels of an array or of nested lists: uint8, (height, width, 1 or 3)."""
    try:
        pixels = np.asarray(value)
    except ValueError as error:
        raise Unfit("is a list whose rows have several lengths") from error
    pixels = eight_bits(pixels, remark)
    if pixels.ndim == 1 and (side := round(pixels.size**0.5)) ** 2 == pixels.size:
        pixels = pixels.reshape(side, side)  # a row of a table of pixels
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)  # channels first, as torch has them
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise Unfit(f"has the shape {tuple(pixels.shape)}; an image has (height, width) or (height, width, 1, 3 or 4)")
    if pixels.shape[2] == 4 and pixels.size:
        pixels = np.asarray(over_background(Image.fromarray(np.ascontiguousarray(pixels)), background))
    return pixels


def eight_bits(pixels: np.ndarray, remark: Remark) -> np.ndarray:
    """Return numbers as uint8: as they are from 0 to 255, or times 255 where all are fractions from 0 to 1."""
    if pixels.dtype == np.uint8 or not pixels.size:
        return pixels.astype(np.uint8)
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.kind not in "iuf":
        raise Unfit(f"holds {shown(pixels.flat[0], 30)} where pixels are numbers")
    if not np.isfinite(pixels).all():
        at = tuple(int(place) for place in np.argwhere(~np.isfinite(pixels))[0])
        raise Unfit(f"holds {pixels[at]} at {list(at)}; every pixel must be a number")
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f" and low >= 0 and high <= 1:
        remark("hold fractions from 0 to 1, which are taken times 255")
        return np.rint(pixels * 255).astype(np.uint8)
    if low < 0 or high > 255:
        value = low if low < 0 else high
        raise Unfit(f"holds the value {value}; pixels run from 0 to 255, or are fractions from 0 to 1")
    if pixels.dtype.kind == "f" and (pixels != np.rint(pixels)).any():
        raise Unfit("holds fractions above 1; pixels are whole numbers from 0 to 255, or fractions from 0 to 1")
    return pixels.astype(np.uint8)


def fitted(pixels: np.ndarray, options: ImageOptions, remark: Remark) -> np.ndarray:
    """Return the pixels as a square of the wanted size and channels, uint8."""
    height, width, channels = pixels.shape
    if options.channels == 3 and channels == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    elif options.channels == 1 and channels == 3:
        remark("lost their colours (data.image.channels: 1)")
        pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]
    if options.size is None and height != width:
        raise Unfit(f"is {width} x {height} pixels, no square; say data.image: {{size: N}} to make all N x N")
    if options.size is None or (height == width == options.size):
        return np.ascontiguousarray(pixels)
    remark(f"were resized to {options.size} x {options.size}" + (f" (fit: {options.fit})" if height != width else ""))
    grey = pixels.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if grey else pixels))
    wanted = (options.size, options.size)
    if options.fit == "stretch":
        image = image.resize(wanted, Image.Resampling.BICUBIC)
    elif options.fit == "crop":
        image = ImageOps.fit(image, wanted, Image.Resampling.BICUBIC)
    else:
        colour = ImageColor.getcolor(options.background, image.mode)
        image = ImageOps.pad(image, wanted, Image.Resampling.BICUBIC, color=colour)
    return np.asarray(image).reshape(options.size, options.size, -1)
