"""Folders and globs of image files; the class of an image is the folder that it lies in."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from finetune.data.chunks import Chunk, Findings, Request
from finetune.data.faults import listed
from finetune.data.files import IMAGES


def read_images(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give the images of a folder, of a glob, or the one of a file; a row's id is the path of its file."""
    path = request.piece.path
    assert request.image is not None
    root = root_of(path)
    files = image_files(path, root, findings)
    if not files:
        findings.faults.add(path, None, f"holds no images; files are read that end in {', '.join(IMAGES)}")
        return
    columns = {request.image: [str(file) for file in files]}
    findings.facts[request.piece.place] = {"bytes": sum(file.stat().st_size for file in files)}
    if request.label is not None:
        classes = classes_of(files, root)
        odd = [str(file) for file, name in zip(files, classes, strict=True) if not name]
        if not odd:
            columns[request.label] = classes
        elif request.label not in request.optional:
            beside = f"beside folders of others ({listed(sorted({*classes} - {''}), 3)})" if any(classes) else "in it"
            fix = "put the images of each class into a folder of its name, or list paths and labels in a CSV file"
            findings.faults.add(path, None, f"has {Path(odd[0]).name} {beside}, so its class is not known; {fix}")
            return
    for start in range(0, len(files), request.rows):
        part = {ours: values[start : start + request.rows] for ours, values in columns.items()}
        numbers = list(range(start + 1, start + 1 + len(part[request.image])))
        yield Chunk(numbers, part, files=part[request.image])


def root_of(path: str) -> Path:
    """Return the folder that classes lie in: the folder itself, or what of a glob's path has no wildcards."""
    if Path(path).is_dir():
        return Path(path)
    if Path(path).is_file():
        return Path(path).parent
    plain = []
    for part in Path(path).parts[:-1]:
        if re.search(r"[*?\[]", part):
            break
        plain.append(part)
    return Path(*plain)


def image_files(path: str, root: Path, findings: Findings) -> list[Path]:
    """Return the image files of a folder and of those below it, or of a glob, by name; hidden ones are passed over."""
    if Path(path).is_file():
        return [Path(path)]
    found = below(root) if Path(path).is_dir() else map(Path, glob.glob(path, recursive=True))
    files = sorted(file for file in found if file.is_file() and not file.name.startswith("."))
    others = [file for file in files if file.suffix.lower() not in IMAGES]
    if others and len(others) < len(files):
        said = f"{len(others):,} files that are no images are passed over, such as {others[0].name}"
        findings.notes.append(f"{path}: {said}")
    return [file for file in files if file.suffix.lower() in IMAGES]


def below(root: Path) -> Iterator[Path]:
    """Give the files of a folder and of those below it, through links, each folder once."""
    seen = set()
    for place, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith((".", "__MACOSX"))]
        yield from (Path(place, name) for name in names if real not in seen)
        seen.add(real)


def classes_of(files: list[Path], root: Path) -> list[str]:
    """Return each file's class, the folder below the root; "" for one that lies in the root itself."""
    parts = [file.relative_to(root).parts for file in files]
    return [part[0] if len(part) > 1 else "" for part in parts]
