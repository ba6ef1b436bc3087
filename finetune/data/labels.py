"""Labels over all files: of one kind, and no two that differ by a space. Which are known is for the task to say."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as compute

from finetune.data.faults import Faults, shown

if TYPE_CHECKING:
    from finetune.data.reading import Read

INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
MOSTLY = 0.9  # share of a CSV column's labels from which they are taken to be meant as numbers


def settle_labels(reads: list[Read], label: str, faults: Faults) -> None:
    """Give the label columns of all files one Arrow type, in place; notes labels of another kind than the others.

    CSV has no types: its labels are numbers if all are and no typed file says otherwise.
    """
    with_label = [read for read in reads if label in read.table.column_names and read.table.num_rows]
    typed = [read for read in with_label if not read.untyped]
    untyped = [read for read in with_label if read.untyped]
    families = {family(read.table.schema.field(label).type) for read in typed} - {"null"}
    if untyped:
        families.add(family_of_text(untyped, label, families, faults))
    if len(families) > 1:
        note_mixed(with_label, label, faults)
        return
    if families == {"number"}:
        whole = all(is_whole(read, label) for read in with_label)
        for read in with_label:
            cast_label(read, label, pa.int64() if whole else pa.float64())


def family(kind: pa.DataType) -> str:
    """Return which labels can stand together: text, number, boolean, list of …, null."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_list(kind):
        return f"list of {family(kind.value_type)}"
    names = {pa.types.is_string: "text", pa.types.is_boolean: "boolean"}
    return next((name for test, name in names.items() if test(kind)), str(kind))


def family_of_text(untyped: list[Read], label: str, typed: set[str], faults: Faults) -> str:
    """Return whether the labels of CSV files are text or numbers; notes the few that spoil a column of numbers."""
    counts: Counter[str] = Counter()
    for read in untyped:
        for item in compute.value_counts(read.table.column(label)).to_pylist():
            if item["values"] is not None:
                counts[item["values"]] += item["counts"]
    odd = {value for value in counts if not NUMBER.fullmatch(value)}
    if typed == {"text"} or not counts:
        return "text"
    if not odd:
        return "number"
    share = 1 - sum(counts[value] for value in odd) / counts.total()
    gaps = share > 0 and all(value.casefold().lstrip("+-") in ("nan", "inf", "infinity") for value in odd)
    if typed == {"number"} or share >= MOSTLY or gaps:
        for read in untyped:
            values = zip(read.table.column("row_id").to_pylist(), read.table.column(label).to_pylist(), strict=True)
            for row_id, value in values:
                if value in odd:
                    faults.add_at(
                        row_id, f'column "{label}" is text ({shown(value, 30)}) where other rows have numbers'
                    )
        return "number"
    return "text"


def is_whole(read: Read, label: str) -> bool:
    """Say whether a file's labels are all integers."""
    column = read.table.column(label)
    if pa.types.is_string(column.type):
        return all(INTEGER.fullmatch(value) for value in compute.unique(column).to_pylist() if value is not None)
    return not pa.types.is_floating(column.type)


def cast_label(read: Read, label: str, kind: pa.DataType) -> None:
    """Turn a file's labels into numbers of one type; what is no such number, and noted elsewhere, becomes null."""
    column = read.table.column(label)
    if pa.types.is_string(column.type):
        convert, form = (int, INTEGER) if pa.types.is_integer(kind) else (float, NUMBER)
        known = {value: convert(value) for value in compute.unique(column).to_pylist() if form.fullmatch(value or "")}
        column = pa.chunked_array([pa.array([known.get(value) for value in column.to_pylist()], kind)])
    else:
        column = column.cast(kind, safe=False) if pa.types.is_floating(kind) else exact_integers(column, kind)
    read.table = read.table.set_column(read.table.column_names.index(label), label, column)


def exact_integers(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return numbers as integers, and null where one has a fraction."""
    whole = compute.round(column)
    return compute.if_else(compute.equal(column, whole), whole, None).cast(kind)


def note_mixed(reads: list[Read], label: str, faults: Faults) -> None:
    """Note the first file whose labels are of another kind than those of the first file."""
    names = {"text": "text", "number": "a number", "boolean": "true or false"}
    kinds = [(read, family(read.table.schema.field(label).type)) for read in reads]
    first, kind = next((read, kind) for read, kind in kinds if kind != "null")
    for read, other in kinds:
        if other not in (kind, "null"):
            value, where = read.table.column(label)[0].as_py(), first.table.column("row_id")[0].as_py()
            here = f'column "{label}" is {names.get(other, other)} ({shown(value, 30)})'
            message = f"{here} where {where} has {names.get(kind, kind)}; write all labels alike"
            faults.add_at(read.table.column("row_id")[0].as_py(), message)


def alike_labels(labels: pa.ChunkedArray) -> list[str]:
    """Return a sentence for each two text labels that differ by case or white space only."""
    if not pa.types.is_string(labels.type):
        return []
    seen: dict[str, tuple[str, int]] = {}
    notes = []
    for item in compute.value_counts(labels).to_pylist():
        value, count = item["values"] or "", item["counts"]
        plain = " ".join(value.casefold().split())
        if plain in seen:
            other, rows = seen[plain]
            pair = f"{shown(other)} ({rows} rows) and {shown(value)} ({count} rows)"
            notes.append(f"labels {pair} differ in case or spaces only and are taken as two classes")
        else:
            seen[plain] = (value, count)
    return notes
