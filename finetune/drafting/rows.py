"""A look at the first rows of a file, whatever its columns are called."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.errors import UserError

SEEN = 2000  # rows that are looked at


def rows_of(data: Path, form: str) -> Iterator[dict[str, Any]]:
    """Yield rows as the file has them, enough to look at."""
    if form == "csv":
        with opened(data) as stream:
            yield from (
                _numbered(row) for row in csv.DictReader(stream, delimiter="\t" if ".tsv" in data.name else ",")
            )
    elif form == "parquet":
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(data).iter_batches(SEEN):
            yield from batch.to_pylist()
    elif form == "arrow":
        import pyarrow.feather

        yield from pyarrow.feather.read_table(data).slice(0, SEEN).to_pylist()
    else:
        yield from _json_rows(data)


def _json_rows(data: Path) -> Iterator[dict[str, Any]]:
    with opened(data) as stream:
        text = stream.read() if data.name.removesuffix(".gz").endswith(".json") else None
        lines = itertools.islice(stream, SEEN) if text is None else ()
        try:
            found: Any = json.loads(text) if text is not None else [json.loads(line) for line in lines if line.strip()]
        except ValueError as error:
            raise UserError(f"{data}: not JSON ({error}).") from None
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        rows = found["data"]
        if rows and isinstance(rows[0], dict) and "paragraphs" in rows[0]:  # SQuAD's layout
            yield {"question": "", "context": "", "answers": []}
            return
        found = rows
    for row in found if isinstance(found, list) else ():
        if isinstance(row, dict):
            yield row


def _numbered(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a CSV file with numbers as numbers."""
    return {str(name): _number(value) for name, value in row.items() if name is not None}


def _number(value: Any) -> Any:
    try:
        return float(value) if value and any(sign in value for sign in ".e") else int(value)
    except (TypeError, ValueError):
        return value


def opened(data: Path) -> Any:
    """Return a file of text as a stream, unpacked where it is packed."""
    options: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "replace", "newline": ""}
    return gzip.open(data, "rt", **options) if data.suffix == ".gz" else data.open(**options)
