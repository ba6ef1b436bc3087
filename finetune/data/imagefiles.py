"""Folders and globs of image files; the class of an image is the folder that it lies in."""

from __future__ import annotations

import glob
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
    files = image_files(path, root)
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


def image_files(path: str, root: Path) -> list[Path]:
    """Return the image files of a folder and of those below it, or of a glob, by name; hidden ones are passed over."""
    if Path(path).is_file():
        return [Path(path)]
    found = root.rglob("*") if Path(path).is_dir() else map(Path, glob.glob(path, recursive=True))
    return sorted(
        file
        for file in found
        if file.suffix.lower() in IMAGES
        and not any(part.startswith((".", "__MACOSX")) for part in file.relative_to(root).parts)
        and file.is_file()
    )


def classes_of(files: list[Path], root: Path) -> list[str]:
    """Return each file's class, the folder below the root; "" for one that lies in the root itself."""
    parts = [file.relative_to(root).parts for file in files]
    return [part[0] if len(part) > 1 else "" for part in parts]
