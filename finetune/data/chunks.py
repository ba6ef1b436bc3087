"""What readers are asked for, and what they give: a few thousand rows at a time, as Python values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.data.cleaning import Cleaning, Tallies
from finetune.data.faults import Faults, listed
from finetune.data.files import Piece
from finetune.data.options import ImageOptions
from finetune.errors import did_you_mean
from finetune.task import Parts

ROWS = 10_000  # rows of a chunk
IMAGES = 500  # the same where a row holds an image


@dataclass(frozen=True)
class Request:
    """Which columns of one piece are read, and how."""

    piece: Piece
    columns: dict[str, str]  # our name: the file's name
    texts: tuple[str, ...]  # our names of those that hold text
    label: str | None  # our name of the target's column
    optional: frozenset[str] = frozenset()  # our names of those that may be missing (a label, at prediction)
    encoding: str = "utf-8"
    sample_by: str = "document"
    empty_texts: str = "error"
    streaming: bool = False  # a Hub data set is not downloaded whole
    target: str | None = None  # our name of the column that holds the text to be written
    parts: Parts | None = None  # what a text is made of; all of its columns are optional
    image: str | None = None  # our name of the column that holds images
    words: str | None = None  # our name of that text which is a list of words
    passage: str | None = None  # our name of that text in which the label's answers stand
    clean: Cleaning | None = None  # what is done to texts once they are known to be texts
    squares: ImageOptions = field(default_factory=ImageOptions)  # what becomes of them

    @property
    def rows(self) -> int:
        """How many rows a chunk has."""
        return ROWS if self.image is None else IMAGES

    @property
    def folder(self) -> Path:
        """Where the paths begin that the piece holds."""
        return Path() if self.piece.format == "images" else Path(self.piece.path).parent


@dataclass
class Chunk:
    """Rows in their order: the line (or row) where each begins, and a list of values a column, by our names."""

    lines: list[int] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    classes: list[str] | None = None  # the label's names in the order of the data set's own ClassLabel
    files: list[str] | None = None  # each row's own file, where rows are files


@dataclass
class Findings:
    """What reading notes on the way: mistakes, sentences for the reader, facts."""

    faults: Faults
    notes: list[str] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # fingerprints of what is no file here
    generated: dict[str, dict[str, Any]] = field(default_factory=dict)  # of files that hold a model's samples
    cleaned: Tallies = field(default_factory=dict)  # what data.clean did
    remarks: Counter[tuple[str, str]] = field(default_factory=Counter)  # (place, "were resized …"): images


def present_columns(request: Request, known: Iterable[str], line: int | None, faults: Faults) -> dict[str, str] | None:
    """Return the asked columns that a file has, or None after noting those that it must have and has not."""
    names = list(known)
    missing = [ours for ours, theirs in request.columns.items() if theirs not in names]
    needed = [ours for ours in missing if ours not in request.optional]
    if needed:
        theirs = [request.columns[ours] for ours in needed]
        near = did_you_mean(theirs[0], names) or f" Say data.columns: {{{needed[0]}: NAME}}"
        faults.add(request.piece.place, line, f"has no column {listed(theirs)}; its columns: {listed(names)}.{near}")
    present = {ours: theirs for ours, theirs in request.columns.items() if ours not in missing}
    if request.parts is not None and not present:
        near = next((each for name in names if (each := did_you_mean(name, request.columns.values()))), "")
        wanted = listed(request.columns.values(), 12)
        faults.add(request.piece.place, line, f"has the columns {listed(names)}, and none of {wanted}.{near}")
        return None
    return None if needed else present
