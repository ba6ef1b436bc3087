"""From a piece to checked rows. A new format is one function and one line in READERS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from finetune.data.checks import to_table
from finetune.data.chunks import Chunk, Findings, Request
from finetune.data.columnar import read_arrow, read_hub, read_parquet, read_saved
from finetune.data.delimited import read_delimited
from finetune.data.files import Piece, fingerprint
from finetune.data.jsonfiles import read_json
from finetune.data.labels import settle_labels
from finetune.data.options import DataOptions
from finetune.data.plain import read_text
from finetune.errors import EnvironmentFailed, UserError, did_you_mean
from finetune.task import Columns

READERS: dict[str, Callable[[Request, Findings], Iterator[Chunk]]] = {
    "csv": read_delimited,
    "tsv": read_delimited,
    "json": read_json,
    "text": read_text,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "folder": read_saved,
    "hub": read_hub,
}


@dataclass
class Read:
    """What one piece held."""

    piece: Piece
    table: pa.Table  # the task's columns by our names, and row_id
    rows: int  # that the piece held; fewer are in the table when some were dropped
    classes: list[str] | None = None  # names of its own ClassLabel

    @property
    def untyped(self) -> bool:
        """Say whether its labels are text because the format knows nothing else."""
        return self.piece.format in ("csv", "tsv")


def request_for(
    piece: Piece,
    options: DataOptions,
    columns: Columns,
    group: str | None = None,
    optional: frozenset[str] = frozenset(),
) -> Request:
    """Return what to read of a piece: the task's columns under the names that the piece has for them."""
    wanted = [name for name in (*columns.texts, columns.label, group) if name is not None]
    for where, mapping in (("data.columns", options.columns), (f"columns of {piece.path}", piece.source.columns)):
        for name in mapping:
            if name not in wanted and name != columns.label:
                near = did_you_mean(name, wanted)
                raise UserError(f"{where}.{name}: the task reads no such column, but {', '.join(wanted)}.{near}")
    names = {**options.columns, **piece.source.columns}
    return Request(
        piece=piece,
        columns={name: names.get(name, name) for name in wanted},
        texts=columns.texts,
        label=columns.label,
        optional=optional,
        encoding=options.encoding,
        sample_by=options.sample_by,
        empty_texts=options.empty_texts,
        streaming=options.streaming and piece.split == "train",
    )


def read_reads(request: Request, findings: Findings) -> Iterator[Read]:
    """Give checked rows, some thousand at a time."""
    try:
        for chunk in READERS[request.piece.format](request, findings):
            if chunk.lines:
                table, dropped = to_table(chunk, request, findings)
                yield Read(request.piece, table, table.num_rows + dropped, chunk.classes)
    except PermissionError as error:
        raise EnvironmentFailed(f"{request.piece.path}: may not be read ({error.strerror})") from error


def read_piece(request: Request, findings: Findings) -> Read:
    """Return the checked rows of a piece, in memory as Arrow. Its fingerprint goes to the findings."""
    parts = list(read_reads(request, findings))
    piece, rows = request.piece, sum(part.rows for part in parts)
    if request.label is not None and not any(part.untyped for part in parts):  # CSV's are settled over all files
        settle_labels(parts, request.label, findings.faults)
    table = join([part.table for part in parts])
    if not parts:
        table = pa.table({name: pa.array([], pa.string()) for name in (*request.columns, "row_id")})
    facts = findings.facts.get(piece.place) or fingerprint(piece.path)
    findings.facts[piece.place] = {**facts, "rows": rows}
    return Read(piece, table, rows, parts[0].classes if parts else None)


def join(tables: list[pa.Table]) -> pa.Table:
    """Return tables as one; a column that is empty or missing in one takes the type that it has in another."""
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
