"""What a source of the recipe means: files on disk, a saved folder, or a data set on the Hub."""

from __future__ import annotations

import glob
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.data.options import DataOptions, Source
from finetune.errors import UserError, did_you_mean

SUFFIXES = {  # end of a file's name, .gz aside: how it is read
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".txt": "text",
    ".text": "text",
    ".conll": "conll",
    ".conllu": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".bio": "conll",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".npz": "npz",
}
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
IDX = re.compile(r"[-.]idx\d-ubyte$")  # train-images-idx3-ubyte, train-images.idx3-ubyte


@dataclass(frozen=True)
class Piece:
    """One thing that is read: a file, a folder or a Hub data set, and the source that named it."""

    path: str  # as the reader wrote it
    format: str  # a value of SUFFIXES, "idx", "images" (a folder or glob of them), "folder" or "hub"
    source: Source
    split: str  # train, validation or test

    @property
    def place(self) -> str:
        """The part of a row id before the colon."""
        if self.format == "hub" or (self.format == "folder" and (Path(self.path) / "dataset_dict.json").exists()):
            parts = [self.path, self.source.name, self.source.split or self.split]
            return "/".join(part for part in parts if part)
        return self.path


def named_sources(given: Any, split: str) -> list[Source]:
    """Return the sources that the recipe's `data.<split>` names, in order; weights on all of them or on none."""
    several = given if isinstance(given, list) else [given]
    sources = [item if isinstance(item, Source) else Source(path=str(item)) for item in several]
    if not sources:
        raise UserError(f"data.{split} is an empty list; name a file, or leave it out")
    weighted = [source for source in sources if source.weight is not None]
    if weighted and split != "train":
        raise UserError(f"data.{split}: {weighted[0].path} has a weight; only the sources of data.train are mixed")
    if weighted and len(weighted) < len(sources):
        bare = next(source.path for source in sources if source.weight is None)
        raise UserError(f"data.{split}: {weighted[0].path} has a weight and {bare} has none; give each one, or none")
    return sources


def find_pieces(source: Source, split: str, options: DataOptions, images: bool = False) -> list[Piece]:
    """Return what a source's path stands for: the files of a glob in the order of their names, or one thing.

    Args:
        images: a folder that `save_to_disk` did not write is one of image files.
    """
    path, where = source.path, f"data.{split}: {source.path}"
    if not path.strip():
        raise UserError(f"data.{split}: the path is empty; name a file, a glob, a folder or a Hub id")
    if Path(path).is_dir():
        if not any((Path(path) / name).exists() for name in ("dataset_info.json", "dataset_dict.json")):
            if images:
                return [Piece(of_split(path, source.split or split), "images", source, split)]
            raise UserError(f"{where} is a folder that save_to_disk did not write; name its files, e.g. {path}/*.csv")
        return [Piece(path, "folder", source, split)]
    if Path(path).is_file():
        return [Piece(path, known_format(path, split), source, split)]
    if re.search(r"[*?\[]", path):
        found = sorted(match for match in glob.glob(path, recursive=True) if Path(match).is_file())
        if not found:
            raise UserError(f"{where}: no file matches")
        pieces = [Piece(match, known_format(match, split), source, split) for match in found]
        return [Piece(path, "images", source, split)] if {each.format for each in pieces} == {"images"} else pieces
    if is_hub_id(path):
        return [Piece(path, "hub", replace(source, revision=source.revision or options.revision), split)]
    raise UserError(f"{where}: no such file.{nearest_file(path)}")


def of_split(path: str, split: str) -> str:
    """Return the sub-folder of a split, where a folder of images holds nothing but folders of splits."""
    names = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
    folders = {item.name: item for item in Path(path).iterdir() if item.is_dir() and not item.name.startswith(".")}
    known = {name for several in names.values() for name in several}
    if not folders or not {name.lower() for name in folders} <= known:
        return path
    found = [str(item) for name, item in folders.items() if name.lower() in names.get(split, (split,))]
    if not found:
        raise UserError(
            f"data.{split}: {path} holds folders of the splits {', '.join(sorted(folders))}, none of {split}"
        )
    return found[0]


def known_format(path: str, split: str) -> str:
    """Return how a file is read, by the end of its name."""
    name = path.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    if IDX.search(name):
        return "idx"
    if suffix in IMAGES and name == path.lower():
        return "images"
    if suffix not in SUFFIXES:
        hint = " Save the sheet as CSV." if suffix in (".xlsx", ".xls", ".ods") else did_you_mean(suffix, SUFFIXES)
        raise UserError(
            f"data.{split}: {path}: {suffix or 'no suffix'} is no known format ({', '.join(SUFFIXES)}).{hint}"
        )
    if name != path.lower() and SUFFIXES[suffix] in ("parquet", "arrow", "npz"):
        raise UserError(f"data.{split}: {path}: unpack it first; {suffix} files are not read through gzip")
    return SUFFIXES[suffix]


def is_hub_id(path: str) -> bool:
    """Say whether a path that does not exist here has the form of a Hub id, "name" or "owner/name"."""
    name = path.lower().removesuffix(".gz")
    if Path(name).suffix in (*SUFFIXES, *IMAGES) or IDX.search(name) or Path(path.split("/")[0]).is_dir():
        return False
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", path) is not None


def nearest_file(path: str) -> str:
    """Return " Did you mean X?" with a file or folder that exists, or what of the path does not."""
    parent = Path(path).parent
    if not parent.is_dir():
        above = next(folder for folder in parent.parents if folder.is_dir())
        missing = parent.relative_to(above).parts[0]
        near = did_you_mean(missing, [folder.name for folder in above.iterdir() if folder.is_dir()])
        return f" There is no folder {above / missing}.{near}"
    names = {item.name: item for item in parent.iterdir() if item.is_file()}
    return did_you_mean(Path(path).name, names)


def fingerprint(path: str) -> dict[str, Any]:
    """Return the sha256 and the size of a file, or of a folder's files in the order of their names."""
    files = [Path(path)] if Path(path).is_file() else sorted(item for item in Path(path).rglob("*") if item.is_file())
    digest, size = hashlib.sha256(), 0
    for file in files:
        if file != Path(path):
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    return {"sha256": digest.hexdigest(), "bytes": size}
