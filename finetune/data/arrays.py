"""Files of arrays: NPZ (numpy) and IDX (MNIST)."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from finetune.data.chunks import Chunk, Findings, Request, present_columns
from finetune.data.decoding import open_bytes
from finetune.data.files import IDX
from finetune.data.generated import MARK, read_mark

UNSIGNED_BYTES = 0x08  # the type of an IDX file's numbers that images and labels have
MOST_BYTES = 1 << 36  # 64 GB: a header that promises more is damaged


def read_npz(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give the rows of an NPZ file, whose arrays are the columns; lines are row numbers from 1."""
    path = request.piece.path
    arrays = npz_arrays(request, findings)
    if arrays is None or request.image is None:
        return
    lengths = {request.columns[ours]: len(array) for ours, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {count:,}" for name, count in lengths.items())
        findings.faults.add(path, None, f"has arrays of several lengths ({said}); each must have one entry a row")
        return
    arrays[request.image] = as_bytes(arrays[request.image], request, findings)
    yield from cut(arrays, request, findings)


def npz_arrays(request: Request, findings: Findings) -> dict[str, np.ndarray] | None:
    """Return the wanted arrays by our names, or None after noting what is wrong with the file."""
    path = request.piece.path
    try:
        with open(path, "rb") as stream, np.load(stream) as file:  # numpy leaves a damaged file open
            if not isinstance(file, np.lib.npyio.NpzFile):
                findings.faults.add(path, None, "is one array and no NPZ file; write it with numpy.savez_compressed")
                return None
            columns = present_columns(request, file.files, None, findings.faults)
            if columns is None:
                return None
            arrays = {ours: np.asarray(file[theirs]) for ours, theirs in columns.items()}
            if MARK in file.files:
                findings.generated[request.piece.place] = read_mark(file[MARK])
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        said = str(error).split("\n")[0]
        if "allow_pickle" in said:
            said = "it holds pickled objects, which could run code; write numbers or texts of one shape"
        findings.faults.add(path, None, f"is no NPZ file that can be read: {said}")
        return None
    for ours, array in arrays.items():
        if array.ndim == 0 or (ours != request.image and array.ndim > 1):
            findings.faults.add(path, None, f'array "{columns[ours]}" has the shape {array.shape}; one value a row')
            return None
    return arrays


def as_bytes(images: np.ndarray, request: Request, findings: Findings) -> np.ndarray:
    """Return images of fractions from 0 to 1 as bytes, judged over the whole file; others as they are.

    Those with numbers that are not finite stay, to be named with their rows.
    """
    if images.dtype.kind != "f" or not images.size:
        return images
    finite = np.isfinite(images)
    low, high = images.min(where=finite, initial=np.inf), images.max(where=finite, initial=-np.inf)
    if not finite.all() or low < 0 or high > 1:
        return images
    findings.remarks[request.piece.place, "hold fractions from 0 to 1, which are taken times 255"] += len(images)
    return np.rint(images * 255).astype(np.uint8)


def cut(arrays: dict[str, np.ndarray], request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give arrays as chunks of rows."""
    count = len(next(iter(arrays.values())))
    if count == 0:
        findings.faults.add(request.piece.path, None, "holds no rows")
    for start in range(0, count, request.rows):
        stop = min(start + request.rows, count)
        columns: dict[str, list[Any]] = {
            ours: list(array[start:stop]) if ours == request.image else array[start:stop].tolist()
            for ours, array in arrays.items()
        }
        yield Chunk(list(range(start + 1, stop + 1)), columns)


def read_idx(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give the images of an IDX file, perhaps packed, with the labels of the file that belongs to it.

    Labels lie beside the images, under the same name with "labels" and "idx1" for "images" and "idx3".
    """
    path = request.piece.path
    images = idx_array(path, findings)
    if images is None or request.image is None:
        return
    if images.ndim < 3:
        what = "labels" if images.ndim == 1 else f"an array of shape {images.shape}"
        findings.faults.add(path, None, f"holds {what}; name the file of the images")
        return
    arrays = {request.image: images}
    if request.label is not None:
        labels = idx_labels(request, len(images), findings)
        if labels is not None:
            arrays[request.label] = labels
        elif request.label not in request.optional:
            return
    yield from cut(arrays, request, findings)


def idx_labels(request: Request, count: int, findings: Findings) -> np.ndarray | None:
    """Return the labels that belong to a file of images, or None, after noting it if they must be there."""
    path = Path(request.piece.path)
    packed = path.name.lower().endswith(".gz")
    stem = path.name[:-3] if packed else path.name
    name = stem[: IDX.search(stem.lower()).start()]  # type: ignore[union-attr]
    end = stem[len(name)] + "idx1-ubyte"
    beside = [path.with_name(name.replace("images", "labels") + end + last) for last in ("", ".gz")]
    found = next((file for file in (reversed(beside) if packed else beside) if file.is_file() and file != path), None)
    if found is None:
        if request.label not in request.optional:
            message = f"has no labels: neither {beside[0].name} nor {beside[1].name} lies beside it"
            findings.faults.add(str(path), None, message)
        return None
    labels = idx_array(str(found), findings)
    if labels is not None and labels.shape != (count,):
        message = f"holds labels of shape {labels.shape} where {path.name} holds {count:,} images"
        findings.faults.add(str(found), None, message)
        return None
    return labels


def idx_array(path: str, findings: Findings) -> np.ndarray | None:
    """Return the array of an IDX file (http://yann.lecun.com/exdb/mnist: magic number, sizes, bytes), or None."""
    try:
        return unpacked(path)
    except ValueError as error:
        findings.faults.add(path, None, str(error))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        findings.faults.add(path, None, f"is not a whole .gz file ({error}); pack it again")
    return None


def unpacked(path: str) -> np.ndarray:
    """Return the array of an IDX file; ValueError says what is wrong with it."""
    with open_bytes(path) as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != UNSIGNED_BYTES or not 1 <= magic[3] <= 4:
            said = f"it begins with {magic.hex(' ') or 'nothing'}, and an IDX file of bytes with 00 00 08 and 01 to 04"
            raise ValueError(f"is no IDX file: {said}")
        header = file.read(4 * magic[3])
        shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(0, 4 * magic[3], 4))
        size = int(np.prod(shape, dtype=object))
        if len(header) < 4 * magic[3] or size > MOST_BYTES:
            raise ValueError("is cut short or damaged: its header names no sizes that can be")
        content = file.read(size + 1)
        if len(content) != size:
            held = f"more than {size:,}" if len(content) > size else f"{len(content):,}"
            raise ValueError(f"holds {held} bytes where its header, {shape}, says {size:,}")
        return np.frombuffer(content, np.uint8).reshape(shape)
