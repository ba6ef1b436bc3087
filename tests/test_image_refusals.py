"""Images that cannot be used, through the whole command: one line that names the file, exit 2, nothing written."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from finetune.cli import main

GREY = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
LABELS = ["a", "b"] * 3


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def grey(side: int = 8, wide: int | None = None) -> bytes:
    return encoded(Image.fromarray(np.arange(side * (wide or side), dtype=np.uint8).reshape(side, -1)))


def folder(**files: bytes) -> Callable[[], str]:
    """Return a function that writes class folders of good images, and these files into one of them."""

    def write() -> str:
        for number, image in enumerate(GREY):
            place = Path("pictures", LABELS[number])
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(encoded(Image.fromarray(image)))
        for name, content in files.items():
            Path("pictures/a", name.replace("_", ".")).write_bytes(content)
        return "pictures"

    return write


def npz(**arrays: Any) -> Callable[[], str]:
    def write() -> str:
        np.savez("rows.npz", **({"image": GREY, "label": LABELS} | arrays))
        return "rows.npz"

    return write


def file(name: str, content: bytes) -> Callable[[], str]:
    def write() -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
        return name

    return write


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_pair(images: bytes, labels: bytes | None = None) -> Callable[[], str]:
    def write() -> str:
        if labels is not None:
            file("t-labels-idx1-ubyte", labels)()
        return file("t-images-idx3-ubyte", images)()

    return write


def nan_at(row: int) -> np.ndarray:
    images = GREY / 255
    images[row, 3, 4] = np.nan
    return images


def bomb() -> bytes:
    """Return a small PNG of 30,000 x 30,000 pixels."""
    return encoded(Image.new("1", (30_000, 30_000)))


def inside(name: str, content: bytes) -> Callable[[], str]:
    """Return a function that writes one file somewhere below a folder and returns the folder."""

    def write() -> str:
        return file(name, content)().split("/")[0]

    return write


def flat(names: int) -> Callable[[], str]:
    def write() -> str:
        for number in range(names):
            file(f"flat/{number}.png", grey())()
        return "flat"

    return write


def pickled() -> str:
    np.savez("rows.npz", image=np.array([{"run": "me"}] * 6, dtype=object), label=LABELS)
    return "rows.npz"


def misnamed() -> str:
    np.savez("rows.npz", imgae=GREY, label=LABELS)
    return "rows.npz"


def half_an_npz() -> str:
    path = npz()()
    Path(path).write_bytes(Path(path).read_bytes()[:300])
    return path


def strange_member() -> str:
    with zipfile.ZipFile("rows.npz", "w") as archive:
        archive.writestr("image.npy", b"no array")
        archive.writestr("label.npy", b"no array")
    return "rows.npz"


sixteen = encoded(Image.fromarray(np.full((8, 8), 40_000, np.uint16)))
print_colours = encoded(Image.new("CMYK", (8, 8), (10, 20, 30, 0)), "JPEG")
one = np.array([1, 2, 3, 4, 5, 6])

# (name, what writes the data, what the line says)
CASES: list[tuple[str, Callable[[], str], str]] = [
    ("broken", folder(x_png=b"\x89PNG\r\n\x1a\nand no more"), "pictures/a/x.png: is no whole image that can be read"),
    ("cut-jpeg", folder(x_jpg=encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900]),
     "pictures/a/x.jpg: is no whole image that can be read: image file is truncated"),
    ("cut-png", folder(x_png=encoded(Image.effect_noise((64, 64), 90))[:2000]), "pictures/a/x.png: is no whole image"),
    ("no-image", folder(x_png=b"<html>not found</html>"), "x.png: is no whole image that can be read: its format is"),
    ("no-bytes", folder(x_png=b""), "pictures/a/x.png: is empty: 0 bytes"),
    ("cmyk", folder(x_jpg=print_colours), "pictures/a/x.jpg: is CMYK, colours for print that a profile must"),
    ("16-bit", folder(x_png=sixteen), "pictures/a/x.png: has more than 8 bits a channel; save it with 8 bits"),
    ("mixed-sizes", folder(x_png=grey(16)),
     "pictures/a/x.png: is 16 x 16 pixels where pictures/a/0.png is 8 x 8; say data.image: {size: N}"),
    ("oblong", folder(x_png=grey(8, 9)), "pictures/a/x.png: is 9 x 8 pixels, no square; say data.image: {size: N}"),
    ("bomb", folder(x_png=bomb()), "pictures/a/x.png: would unpack into more pixels than any image here may have"),
    ("large-bomb", folder(x_png=encoded(Image.new("1", (8000, 8000)))), "x.png: has 8000 x 8000 pixels; more than 50,"),
    ("tiny", inside("flat/a/1.png", grey(4)), "flat/a/1.png: is 4 x 4 pixels, and a side may have 8 to 256; say"),
    ("folder-without-images", inside("flat/readme.txt", b"x"), "flat: holds no images; files are read that end in"),
    ("one-image", inside("flat/a/1.png", grey()), "flat/a/1.png: is the only image of data.train; nothing is learned"),
    ("no-classes", flat(3), "flat: has 0.png in it, so its class is not known; put the images of each class into"),
    ("stray", lambda: [folder()(), file("pictures/x.png", grey())()][0],
     'pictures: has x.png beside folders of others ("a", "b"), so its class is not known'),
    ("nan", npz(image=nan_at(2)), 'rows.npz:3: column "image" holds nan at [3, 4]; every pixel must be a number'),
    ("infinite", npz(image=np.where(np.isnan(nan_at(0)), np.inf, 0.5)), 'rows.npz:1: column "image" holds inf at'),
    ("too-bright", npz(image=GREY.astype(np.int64) + 200), 'rows.npz:1: column "image" holds the value'),
    ("signed", npz(image=GREY / 127.5 - 1), "pixels run from 0 to 255, or are fractions from 0 to 1"),
    ("zero-size", npz(image=np.zeros((6, 0, 0), np.uint8)), 'rows.npz:1: column "image" holds no pixels: its shape'),
    ("no-rows", npz(image=GREY[:0], label=np.array([], int)), "rows.npz: holds no rows"),
    ("five-dimensions", npz(image=np.zeros((6, 2, 2, 2, 2))), 'rows.npz:1: column "image" has the shape (2, 2, 2, 2)'),
    ("texts", npz(image=np.array([["a"] * 4] * 6)), 'rows.npz:1: column "image" holds "a" where pixels are numbers'),
    ("lengths", npz(label=one[:5]), "rows.npz: has arrays of several lengths (image 6, label 5)"),
    ("label-table", npz(label=np.zeros((6, 2))), 'rows.npz: array "label" has the shape (6, 2); one value a row'),
    ("other-array", misnamed,
     'rows.npz: has no column "image"; its columns: "imgae", "label". Did you mean imgae?'),
    ("pickled", pickled, "rows.npz: is no NPZ file that can be read: it holds pickled objects, which could"),
    ("half-npz", half_an_npz, "rows.npz: is no NPZ file that can be read"),
    ("strange-npz", strange_member, 'rows.npz: array "image" has the shape ()'),
    ("magic", idx_pair(b"\0\0\x0d\3" + idx(GREY)[4:]), "is no IDX file: it begins with 00 00 0d 03, and"),
    ("png-as-idx", idx_pair(grey()), "t-images-idx3-ubyte: is no IDX file: it begins with 89 50 4e 47"),
    ("short-idx", idx_pair(idx(GREY)[:-9]), "ubyte: holds 375 bytes where its header, (6, 8, 8), says 384"),
    ("long-idx", idx_pair(idx(GREY) + b"x"), "t-images-idx3-ubyte: holds more than 384 bytes where its header"),
    ("cut-header", idx_pair(idx(GREY)[:9]), "t-images-idx3-ubyte: is cut short or damaged"),
    ("huge-header", idx_pair(b"\0\0\x08\3" + b"\xff" * 12), "t-images-idx3-ubyte: is cut short or damaged"),
    ("empty-idx", idx_pair(b""), "t-images-idx3-ubyte: is no IDX file: it begins with nothing"),
    ("no-labels", idx_pair(idx(GREY)), "t-images-idx3-ubyte: has no labels: neither t-labels-idx1-ubyte nor"),
    ("few-labels", idx_pair(idx(GREY), idx(one[:4])), "idx1-ubyte: holds labels of shape (4,) where t-images"),
    ("labels-as-images", file("t-labels-idx1-ubyte", idx(one)), "t-labels-idx1-ubyte: holds labels; name the file of"),
    ("cut-gz", file("t-images-idx3-ubyte.gz", gzip.compress(idx(GREY))[:-20]), "ubyte.gz: is not a whole .gz file"),
    ("no-gz", file("t-images-idx3-ubyte.gz", idx(GREY)), "t-images-idx3-ubyte.gz: is not a whole .gz file"),
    ("no-such-path", file("rows.csv", b"image,label\npictures/x.png,a\n"),
     'rows.csv:2: column "image" names "pictures/x.png", and there is no such file. There is no folder pictures'),
    ("ragged", file("rows.jsonl", b'{"image": [[1, 2], [3]], "label": 1}\n'), 'rows.jsonl:1: column "image" is a'),
    ("null", file("rows.jsonl", b'{"image": null, "label": 1}\n'), 'rows.jsonl:1: column "image" is null'),
    ("text-file", file("rows.txt", b"hello"), "rows.txt: is plain text, and the task reads images"),
    ("no-folder", lambda: "./imags", "data.train: ./imags: no such file"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, **data: Any) -> str:
    """Run `finetune train` on a recipe with these data options; return its one line after checking that it is one."""
    sections = {
        "task": {"kind": "image-classification"},
        "data": data,
        "model": {"config": {"model_type": "finetune-image-classifier"}},
        "train": {"output_dir": "runs/x", "max_steps": 1},
    }
    Path("recipe.yaml").write_text(yaml.safe_dump(sections))
    before = {path for path in Path().rglob("*") if path.is_file()}

    code = main(["train", "recipe.yaml", *arguments])

    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if line.startswith("finetune: ")]
    assert code == 2, error
    assert len(said) == 1, error
    assert "Traceback" not in error
    assert {path for path in Path().rglob("*") if path.is_file()} == before
    return said[0]


@pytest.mark.parametrize(("name", "write", "line"), CASES, ids=[case[0] for case in CASES])
def test_an_image_that_cannot_be_used_is_one_line_and_exit_2(name, write, line, capsys):
    assert line in refused(capsys, train=write())


def test_colours_of_16_bits_are_refused_and_not_cut_to_8(capsys):
    header = b"\x89PNG\r\n\x1a\n"
    import zlib

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + b"\x01\x02" * 24 for _ in range(8))
    image = header + part(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    image += part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")

    assert "x.png: has more than 8 bits a channel" in refused(capsys, train=folder(x_png=image)())


def test_several_broken_images_are_named_together(capsys):
    line = refused(capsys, train=folder(x_png=b"x", y_png=b"")())

    assert line.endswith("and 1 more (pictures/a/y.png)")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"image": {"size": 7}}, "data.image.size is 7; it must lie between 8 and 256 pixels"),
        ({"image": {"size": 300}}, "data.image.size is 300; it must lie between 8 and 256 pixels"),
        ({"image": {"channels": 2}}, "data.image.channels"),
        ({"image": {"fit": "padd"}}, "Did you mean pad?"),
        ({"image": {"background": "whitee"}}, "data.image.background is whitee; give the name of a colour or"),
        ({"image": {"sizes": 8}}, "data.image.sizes is not an option"),
        ({"streaming": True}, "data.streaming: images are read whole; leave it out"),
        ({"columns": {"text": "x"}}, "data.columns.text: the task reads no such column, but image, label."),
        ({"duplicates": "error"}, "rows.npz:7: 6 of 12 train rows (50.0%) repeat an earlier row"),
    ],
)
def test_options_for_images_that_cannot_be_are_refused(options, line, capsys):
    write = npz(image=np.concatenate([GREY, GREY]), label=LABELS * 2)

    assert line in refused(capsys, train=write(), **options)


def test_a_task_on_texts_refuses_images(capsys):
    kind = ["--task.kind", "text-classification", "--model.config", "null", "--model.path", "x"]

    assert "rows.npz: holds images, and the task reads text" in refused(capsys, *kind, train=npz()())
    assert "data.image: the task reads no images, but text" in refused(capsys, *kind, train=npz()(), image={"size": 8})
    assert "is a folder that save_to_disk did not write" in refused(capsys, *kind, train=folder()())


def test_splits_of_a_folder_are_named_where_one_is_missing(capsys):
    folder()()
    Path("whole").mkdir()
    Path("pictures").rename("whole/train")

    assert "data.test: whole holds folders of the splits train, none of test" in refused(
        capsys, train="whole", test="whole"
    )
