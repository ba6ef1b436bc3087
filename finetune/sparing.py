"""What a command writes is none of the files that it reads."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from finetune.errors import UserError


def refuse_what_is_read(flag: str, path: Path | None, read: Iterable[Path], rows: Iterable[Path] = ()) -> None:
    """Refuse to write a file that is read, by whatever name; `flag` of the command, without its dashes, names it."""
    if path is not None and is_read(path, read, rows):
        raise UserError(f"--{flag}: {path} is read by this command; give another file, to be written.")


def is_read(path: Path, read: Iterable[Path], rows: Iterable[Path] = ()) -> bool:
    """Say whether a path is a file that is read.

    Args:
        path: to be written.
        read: files, or globs of them.
        rows: the same, and folders, whose files are read too.
    """
    if not path.is_file():
        return False
    files, folders = [*read], [*rows]
    return any(
        each.exists() and path.samefile(each) for named in (*files, *folders) for each in (named, *_matches(named))
    ) or any(
        each.is_dir() and path.resolve().is_relative_to(each.resolve())
        for named in folders
        for each in (named, *_matches(named))
    )


def _matches(named: Path) -> list[Path]:
    text = str(named)
    return [Path(each) for each in glob.glob(text, recursive=True)] if glob.has_magic(text) else []
