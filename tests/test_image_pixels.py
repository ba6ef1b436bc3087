"""Every picture that a file can hold becomes a square of 8-bit numbers, and what is done to it is said."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from test_image_data import COLOUR, GREY, encoded, image_of, npz, read

from finetune.data.options import ImageOptions
from finetune.data.squares import shape_of
from finetune.task import Columns


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def only(content: bytes, **options: object) -> np.ndarray:
    """Return the pixels of one encoded image, and assert that nothing was refused."""
    pa.parquet.write_table(pa.table({"image": [content, content], "n": [1, 2]}), "one.parquet")
    rows = read("one.parquet", Columns((), image="image"), image=ImageOptions(**options), duplicates="off")
    return image_of(rows.rows["train"][0])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_lossless_kinds_of_file_keep_every_pixel(kind):
    grey = only(encoded(GREY[0], kind, **({"lossless": True} if kind == "WEBP" else {})), channels=1)

    assert (grey[:, :, 0] == GREY[0]).all()


def test_a_jpeg_is_nearly_its_original():
    smooth = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8

    assert np.abs(only(encoded(smooth, "JPEG", quality=95)).astype(int)[:, :, 0] - smooth).max() <= 6


def test_transparent_pixels_show_the_background():
    see_through = np.zeros((8, 8, 4), np.uint8)
    see_through[:4] = (255, 0, 0, 255)
    half = np.full((8, 8, 2), (0, 128), np.uint8)

    assert (only(encoded(see_through))[:4] == (255, 0, 0)).all()
    assert (only(encoded(see_through))[4:] == 255).all()
    assert (only(encoded(see_through), background="#000080")[4:] == (0, 0, 128)).all()
    assert only(encoded(half), channels=1)[0, 0, 0] == 127


def test_a_palette_and_its_transparent_entry_are_understood():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste(0, (0, 0, 8, 4))
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=0)

    pixels = only(stream.getvalue())

    assert (pixels[:4] == 255).all()
    assert (pixels[4:] == (10, 200, 30)).all()


def test_the_orientation_of_a_camera_is_followed():
    top = np.zeros((8, 8), np.uint8)
    top[:2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right

    pixels = only(encoded(top, "PNG", exif=exif))

    assert (pixels[:, -2:] == 255).all()
    assert (pixels[:, :-2] == 0).all()


def test_black_and_white_becomes_0_and_255():
    assert set(np.unique(only(encoded(np.eye(8, dtype=bool))))) == {0, 255}


@pytest.mark.parametrize(("fit", "left", "middle"), [("pad", 0, 200), ("crop", 200, 200), ("stretch", 200, 200)])
def test_an_oblong_becomes_a_square_by_padding_cropping_or_stretching(fit, left, middle):
    tall = np.full((32, 16), 200, np.uint8)

    pixels = only(encoded(tall), size=16, channels=1, fit=fit, background="black")

    assert pixels.shape == (16, 16, 1)
    assert pixels[8, 0, 0] == left
    assert pixels[8, 8, 0] == middle


@pytest.mark.parametrize("size", [8, 21, 256])
def test_images_come_in_the_size_and_the_channels_that_are_asked_for(size):
    splits = read(npz(COLOUR), image=ImageOptions(size=size, channels=1))

    assert shape_of(splits.rows["train"][0]["image"]) == (size, 1)
    assert splits.image == ImageOptions(size=size, channels=1)
    assert f"rows.npz: 4 images were resized to {size} x {size}" in splits.notes
    assert "rows.npz: 4 images lost their colours (data.image.channels: 1)" in splits.notes


def test_a_constant_image_stays_constant_when_it_is_resized():
    assert set(np.unique(only(encoded(np.full((31, 31), 77, np.uint8)), size=10))) == {77}


def test_a_video_gives_its_first_frame():
    frames = [Image.fromarray(image) for image in GREY]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])

    assert (only(stream.getvalue(), channels=1)[:, :, 0] == GREY[0]).all()
