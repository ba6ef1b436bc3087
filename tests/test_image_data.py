"""Images as rows: every format gives the same pixels, every picture becomes a square of bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

from finetune.data import DataOptions, Source, load_splits, read_rows
from finetune.data.options import ImageOptions
from finetune.data.squares import shape_of
from finetune.task import Columns

COLUMNS = Columns(texts=(), label="label", image="image")
LABELS = ["cat", "dog", "cat", "dog"]
GREY = np.random.default_rng(0).integers(0, 256, (4, 9, 9), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (4, 9, 9, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


def put(path: str, content: bytes) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)
    return path


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def npz(images: np.ndarray) -> str:
    np.savez("rows.npz", image=images, label=np.array(LABELS))
    return "rows.npz"


def channels_first(images: np.ndarray) -> str:
    return npz(images.reshape(4, 9, 9, -1).transpose(0, 3, 1, 2))


def fractions(images: np.ndarray) -> str:
    return npz((images / 255).astype(np.float32))


def class_folders(images: np.ndarray) -> str:
    for number, (image, label) in enumerate(zip(images, LABELS, strict=True)):
        put(f"folder/{label}/{number}.png", encoded(image))
    put("folder/readme.txt", b"of images")
    put("folder/.thumbnails/0.png", b"nothing")
    return "folder"


def glob_of_folders(images: np.ndarray) -> str:
    return class_folders(images) + "/*/*.png"


def folder_of_splits(images: np.ndarray) -> str:
    class_folders(images)
    Path("whole").mkdir()
    Path("folder").rename("whole/train")
    Path("whole/test").mkdir()
    return "whole"


def csv_of_paths(images: np.ndarray) -> str:
    with open("rows.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", "label"])
        for number, (image, label) in enumerate(zip(images, LABELS, strict=True)):
            put(f"pictures/{number}.png", encoded(image))
            rows.writerow([f"pictures/{number}.png", label])
    return "rows.csv"


def jsonl_of_paths(images: np.ndarray) -> str:
    csv_of_paths(images)
    rows = [{"image": f"pictures/{number}.png", "label": label} for number, label in enumerate(LABELS)]
    put("there/rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    Path("pictures").rename("there/pictures")
    return "there/rows.jsonl"


def jsonl_of_lists(images: np.ndarray) -> str:
    rows = [{"image": image.tolist(), "label": label} for image, label in zip(images, LABELS, strict=True)]
    return put("lists.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


def parquet_of_bytes(images: np.ndarray) -> str:
    pa.parquet.write_table(pa.table({"image": [encoded(image) for image in images], "label": LABELS}), "rows.parquet")
    return "rows.parquet"


def feather_of_structs(images: np.ndarray) -> str:
    rows = [{"bytes": encoded(image), "path": None} for image in images]
    pa.feather.write_feather(pa.table({"image": rows, "label": LABELS}), "rows.feather")
    return "rows.feather"


def saved(images: np.ndarray) -> str:
    made = datasets.Dataset.from_dict(
        {"image": [{"bytes": encoded(image), "path": None} for image in images], "label": LABELS},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
    made.save_to_disk("saved")
    return "saved"


def arrays_saved(images: np.ndarray) -> str:
    kind = datasets.Array2D((9, 9), "uint8") if images.ndim == 3 else datasets.Array3D((9, 9, 3), "uint8")
    features = datasets.Features({"image": kind, "label": datasets.Value("string")})
    datasets.Dataset.from_dict({"image": list(images), "label": LABELS}, features=features).save_to_disk("arrays")
    return "arrays"


FORMATS = [npz, channels_first, fractions, class_folders, glob_of_folders, folder_of_splits, csv_of_paths,
           jsonl_of_paths, jsonl_of_lists, parquet_of_bytes, feather_of_structs, saved, arrays_saved]  # fmt: skip


def read(source: object, wanted: Columns = COLUMNS, **options: object):
    return load_splits(DataOptions(train=source, **options), wanted, ("train",))


def image_of(row: dict) -> np.ndarray:
    size, channels = shape_of(row["image"])
    return np.frombuffer(row["image"], np.uint8).reshape(size, size, channels)


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.__name__)
def test_every_format_gives_the_same_pixels_and_labels(form, images):
    rows = read(form(images)).rows["train"]

    order = [0, 2, 1, 3] if "folder" in form.__name__ else [0, 1, 2, 3]
    assert [row["image"] for row in rows] == [images[at].tobytes() for at in order]
    assert list(rows["label"]) == [LABELS[at] for at in order]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files_bring_the_labels_that_lie_beside_them(end):
    pack = gzip.compress if end else bytes
    put(f"t-images-idx3-ubyte{end}", pack(idx(GREY)))
    put(f"t-labels-idx1-ubyte{end}", pack(idx(np.array([7, 1, 7, 0]))))

    rows = read(f"t-images-idx3-ubyte{end}").rows["train"]

    assert [row["image"] for row in rows] == [image.tobytes() for image in GREY]
    assert list(rows["label"]) == [7, 1, 7, 0]
    assert rows["row_id"][2] == f"t-images-idx3-ubyte{end}:3"


def test_idx_files_hold_colour_and_need_no_labels_where_none_are_read():
    put("t-images.idx4-ubyte", idx(COLOUR))

    rows = read("t-images.idx4-ubyte", Columns((), image="image")).rows["train"]

    assert [row["image"] for row in rows] == [image.tobytes() for image in COLOUR]


def test_an_image_of_a_folder_is_named_by_its_path():
    assert read(class_folders(GREY)).rows["train"]["row_id"][0] == "folder/cat/0.png"


def test_links_are_followed_once_and_other_files_are_counted():
    class_folders(GREY)
    Path("linked").mkdir()
    Path("linked/bird").symlink_to("../folder/cat")
    Path("linked/dog").symlink_to("../folder/dog")
    Path("linked/dog/loop").symlink_to("..")
    put("linked/notes.txt", b"x")

    splits = read("linked")

    assert list(splits.rows["train"]["label"]) == ["bird", "bird", "dog", "dog"]
    assert splits.notes == ["linked: 2 files that are no images are passed over, such as readme.txt"]


def test_the_arrays_of_an_npz_file_may_have_other_names():
    np.savez("x.npz", images=GREY, y=np.arange(4) % 2)

    rows = read("x.npz", columns={"image": "images", "label": "y"}).rows["train"]

    assert list(rows["label"]) == [0, 1, 0, 1]


def test_files_and_globs_are_joined():
    for name in "ab":
        np.savez(f"{name}.npz", image=GREY, label=LABELS)
    put("more/cat/1.png", encoded(GREY[0]))
    put("more/dog/1.png", encoded(GREY[1]))

    rows = read(["*.npz", "more"], duplicates="off").rows["train"]

    assert len(rows) == 10
    assert rows["row_id"][8] == "more/cat/1.png"


def test_a_class_label_keeps_its_names_and_a_hub_data_set_is_never_decoded(monkeypatch):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})
    rows = {"image": [{"bytes": encoded(image), "path": None} for image in GREY], "label": [0, 1, 0, 1]}
    made = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict({"train": made}))
    monkeypatch.setattr(datasets.Image, "decode_example", None)

    found = read(Source("owner/name")).rows["train"]

    assert found.features["label"].names == ["zebra", "ant"]
    assert found[0]["image"] == GREY[0].tobytes()
    assert found["row_id"][1] == "owner/name/train:2"


def test_grey_images_among_coloured_ones_get_three_equal_channels():
    for number in range(2):
        put(f"mixed/{number}.png", encoded(GREY[number]))
        put(f"mixed/c{number}.png", encoded(COLOUR[number]))

    splits = read("mixed", Columns((), image="image"))

    assert splits.image == ImageOptions(size=9, channels=3)
    assert (image_of(splits.rows["train"][0]) == GREY[0][:, :, None]).all()
    assert splits.notes == ["mixed: 2 images are grey where others have colour; they get three equal channels"]


def test_the_shape_is_settled_over_all_splits():
    np.savez("train.npz", image=GREY, label=LABELS)
    np.savez("test.npz", image=COLOUR, label=LABELS)

    splits = load_splits(DataOptions(train="train.npz", test="test.npz"), COLUMNS)

    assert {name: shape_of(rows[0]["image"]) for name, rows in splits.rows.items()} == {
        "train": (9, 3), "test": (9, 3)}  # fmt: skip


def test_numbers_of_another_scale_are_noted():
    assert "no pixel is above 16 of 255" in read(npz(GREY // 16 + 1)).notes[-1]


def test_a_changed_picture_behind_a_path_changes_the_fingerprint_of_the_data():
    before = read(csv_of_paths(GREY)).fingerprints["rows.csv"]
    put("pictures/1.png", encoded(255 - GREY[1]))
    after = read("rows.csv").fingerprints["rows.csv"]

    assert before["sha256"] == after["sha256"]
    assert before["content"] != after["content"]


def test_images_to_predict_need_no_label_and_are_brought_to_the_size_of_the_run():
    put("new/a.png", encoded(COLOUR[0]))
    put("new/deeper/b.jpg", encoded(np.full((40, 30, 3), 9, np.uint8), "JPEG"))
    columns, options = Columns((), image="image"), DataOptions(image=ImageOptions(size=8, channels=1))

    for path, names in (("new", ["new/a.png", "new/deeper/b.jpg"]), ("new/a.png", ["new/a.png"])):
        rows = read_rows(path, options, columns)
        assert rows["row_id"][:] == names
        assert {shape_of(image) for image in rows["image"]} == {(8, 1)}
