"""Foreign files as bytes: pickles under whatever name, JSON of a bounded size, names that stay in their folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetune.errors import UserError

INDEX = "model.safetensors.index.json"
LARGEST = 1 << 25  # bytes of a configuration or an index; the largest of real models have 5 MB
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
CONTAINERS = {  # how files begin that hold, or may hold, a pickle
    b"PK\x03\x04": "a zip, as torch.save writes it around a pickle",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x89HDF\r\n": "HDF5, in which Keras keeps code",
}
CONVERT = (
    "which can run code when it is read. If you trust it, convert it once, where it can do no harm: "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors', {'format': 'pt'})"
)


def pickle_inside(file: Path) -> str | None:
    """Return what a file is, by its first bytes, when a pickle is or may be in it; None for any other file."""
    with file.open("rb") as stream:
        first = stream.read(512)
    if first[:1] == b"\x80" and first[1:2] and first[1] in range(1, 6) and not _is_header(first, file):
        return "a pickle"  # protocols 1 to 5, and torch's own form before 2020
    if first[257:262] == b"ustar":
        return "a tar archive, as torch.save once wrote it around a pickle"
    return next((what for magic, what in CONTAINERS.items() if first.startswith(magic)), None)


def _is_header(first: bytes, file: Path) -> bool:
    """Say whether a file begins as safetensors do: the length of a header that lies within it, and the header's {."""
    length = int.from_bytes(first[:8], "little")
    return first[2:8] == b"\0" * 6 or (8 + length <= file.stat().st_size and first[8:9] == b"{")


def refuse_pickle(file: Path, option: str) -> None:
    """Refuse a file that holds a pickle, by its name or by its first bytes.

    Raises:
        UserError: it does; the line says how to convert it.
    """
    what = pickle_inside(file)
    if what is None and file.suffix.lower() in PICKLES:
        what = "named as a pickle is"
    if what is not None:
        raise UserError(f"{option}: {file} is {what}, {CONVERT}.")


def read_object(file: Path, most: int = LARGEST) -> dict[str, Any]:
    """Return the JSON object that a file of at most so many bytes holds; UserError when it is damaged or another."""
    if file.stat().st_size > most:
        raise UserError(f"{file} has {file.stat().st_size:,} bytes, and such a file has at most {most:,}.")
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({str(error)[:200]}); the file is damaged: fetch it again.") from None
    if not isinstance(held, dict):
        raise UserError(f"{file} holds {type(held).__name__} where an object {{…}} belongs.")
    return held


def is_plain(name: object) -> bool:
    """Say whether a name stays in the folder in which it is looked for."""
    return isinstance(name, str) and bool(name) and not set(name) & set("/\\\0:") and name not in (".", "..")


def weight_files(folder: Path, option: str = "model.path") -> list[Path]:
    """Return the safetensors files of a model's folder: those of its index, or model.safetensors, or all there are.

    Raises:
        UserError: the index names a file outside the folder, one that is not there or of another kind, or a file is a
            pickle by another name.
    """
    whole, index = folder / "model.safetensors", folder / INDEX
    if whole.is_file():
        found = [whole]
    elif index.is_file():
        held = read_object(index).get("weight_map")
        if not isinstance(held, dict) or not held:
            raise UserError(f"{index}: weight_map is missing; the file is damaged: fetch it again.")
        for tensor, name in held.items():
            if not is_plain(name) or not name.endswith(".safetensors"):
                raise UserError(f"{index}: {str(tensor)[:80]} should lie in {str(name)[:120]!r}, which is not the "
                                "name of a safetensors file beside it.")  # fmt: skip
        found = [folder / name for name in sorted(set(held.values()))]
        for file in found:
            if not file.is_file():
                raise UserError(f"{index} names {file.name}, which is missing in {folder}.")
    else:
        found = sorted(folder.glob("*.safetensors"))
    for file in found:
        refuse_pickle(file, option)
    return found


def digest(files: Iterable[Path]) -> str:
    """Return the sha256 (hex) of one file, or of the digests of several in their order."""
    each = []
    for file in files:
        with file.open("rb") as stream:
            each.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()
