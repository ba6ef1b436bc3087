"""What a command writes is none of the files that it reads."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from finetune.errors import UserError


def refuse_what_is_read(flag: str, path: Path | None, read: Iterable[Path], rows: Iterable[Path] = ()) -> None:
    """Refuse to write a file that is read, by whatever name.

    Args:
        flag: of the command, without its dashes.
        path: what it says; None where it was not given.
        read: files, or globs of them.
        rows: the same, and folders, whose files are read too.
    """
    if path is None or not path.is_file():
        return
    for named in (*read, *rows):
        if any(each.exists() and path.samefile(each) for each in (named, *_matches(named))):
            raise UserError(f"--{flag}: {path} is read by this command; give another file, to be written.")
    for folder in rows:
        if any(each.is_dir() and path.resolve().is_relative_to(each.resolve()) for each in (folder, *_matches(folder))):
            raise UserError(f"--{flag}: {path} is read by this command; give another file, to be written.")


def _matches(named: Path) -> list[Path]:
    text = str(named)
    return [Path(each) for each in glob.glob(text, recursive=True)] if glob.has_magic(text) else []
