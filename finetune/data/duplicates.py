"""Rows of one split that hold the same text."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from finetune.data.faults import shown
from finetune.errors import UserError


def normal_text(text: str) -> str:
    """Return a text as it is compared: composed characters, no case, single spaces."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).casefold().split())


def comparable(value: str | bytes | list[str]) -> str:
    """Return what equal texts, lists of words, or images have in common and others have not."""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return normal_text(value if isinstance(value, str) else " ".join(value))


def thing(table: pa.Table, texts: Sequence[str]) -> str:
    """Return what is compared, in a word."""
    kinds = [table.schema.field(name).type for name in texts if name in table.column_names]
    return "image" if pa.types.is_large_binary(kinds[0]) else "text"


def normal_texts(table: pa.Table, texts: Sequence[str]) -> list[str]:
    """Return one comparable text a row, all text columns in one; of an image, the digest of its pixels."""
    columns = [[comparable(value) for value in table.column(name).to_pylist()] for name in texts]
    return columns[0] if len(columns) == 1 else ["\x1f".join(parts) for parts in zip(*columns, strict=True)]


def settle_duplicates(
    table: pa.Table, texts: Sequence[str], label: str | None, split: str, policy: str
) -> tuple[pa.Table, list[str]]:
    """Return the rows without later copies if `policy` is "drop", and sentences on what was found.

    Copies with another label are contradictions: never dropped, always said.

    Raises:
        UserError: there are duplicates and the policy is "error".
    """
    if policy == "off":
        return table, []
    labels = table.column(label).to_pylist() if label in table.column_names else [None] * table.num_rows
    copies, clashes = find_duplicates(normal_texts(table, texts), labels)
    notes = []
    if copies:
        notes.append(described(table, copies, split, "repeat an earlier row"))
        notes[-1] += "; they are dropped" if policy == "drop" else ""
    if clashes:
        row, before = clashes[0]
        both = f"{shown(labels[before], 20)} and {shown(labels[row], 20)}"
        what = f"have the {thing(table, texts)} of an earlier row and another label ({both})"
        notes.append(described(table, clashes, split, what))
    if policy == "error" and notes:
        raise UserError(f"{'; '.join(notes)}; remove them, or set data.duplicates: drop or warn")
    if policy == "drop" and copies:
        gone = {row for row, _ in copies}
        table = table.filter(pa.array([row not in gone for row in range(table.num_rows)]))
    return table, notes


Pairs = list[tuple[int, int]]


def find_duplicates(texts: list[str], labels: list[Any]) -> tuple[Pairs, Pairs]:
    """Return (row, first row) of the rows with the text and a label of an earlier one, and with another label."""
    first: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    copies, clashes = [], []
    for row, (text, label) in enumerate(zip(texts, map(str, labels), strict=True)):
        before = first.setdefault(text, row)
        if (text, label) in seen:
            copies.append((row, before))
        elif before != row:
            clashes.append((row, before))
        seen.add((text, label))
    return copies, clashes


def described(table: pa.Table, pairs: list[tuple[int, int]], split: str, what: str) -> str:
    """Return a sentence with the count, the share and the first pair of rows."""
    ids = table.column("row_id")
    row, before = pairs[0]
    share = f"{len(pairs):,} of {table.num_rows:,} {split} rows ({len(pairs) / table.num_rows:.1%})"
    return f"{ids[row].as_py()}: {share} {what}: {ids[before].as_py()} is the first"
