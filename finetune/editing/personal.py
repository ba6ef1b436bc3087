"""Where personal data and keys stand in rows: their kind, file and line, and never what stands there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.editing.private import counted
from finetune.errors import UserError
from finetune.sparing import is_read

SHOWN = 5  # places that are named in a sentence


@dataclass(frozen=True)
class Place:
    """A text with something of one kind in it."""

    split: str
    row_id: str  # file:line
    column: str
    kind: str  # of editing.private.KINDS
    count: int


def personal_places(split: str, row_ids: Iterable[str], columns: dict[str, Iterable[Any]]) -> list[Place]:
    """Return the places of a split, in the order of its rows; a list of words is looked at as one text."""
    found = []
    for row_id, *values in zip(row_ids, *columns.values(), strict=True):
        for column, value in zip(columns, values, strict=True):
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
            found += [Place(split, row_id, column, kind, count) for kind, count in counted(text).items()]
    return found


def told_places(split: str, rows: int, places: Sequence[Place], may_scrub: bool) -> str:
    """Return a sentence on what was found in a split of so many rows, and on what replaces it."""
    if not places:
        return f"{split}: no personal data or keys of a known form in {rows:,} rows."
    totals: Counter[str] = Counter()
    for place in places:
        totals[place.kind] += place.count
    held = len({place.row_id for place in places})
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in totals.most_common())
    named = ", ".join(f"{place.row_id} ({place.kind})" for place in places[:SHOWN])
    more = f" and {len(places) - SHOWN:,} more" if len(places) > SHOWN else ""
    asked = ", ".join(totals)
    fix = f"data.clean: [{{scrub: [{asked}]}}] replaces them." if may_scrub else "Clean the files."
    return f"Beware: {split}: personal data or keys in {held:,} of {rows:,} rows ({kinds}): {named}{more}. {fix}"


def refuse_rows(path: Path, rows: Iterable[str]) -> None:
    """Refuse to write the places over what rows are read from: files, globs or folders."""
    if is_read(path, (), map(Path, rows)):
        raise UserError(f"--personal: {path} holds rows of the recipe; give another file, to be written.")


def write_places(path: Path, places: Sequence[Place]) -> None:
    """Write every place as a line of JSON. Raises UserError when nothing can be written there."""
    try:
        path.write_text("".join(json.dumps(vars(each), ensure_ascii=False) + "\n" for each in places), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--personal: {path} cannot be written ({error.strerror}).") from None
