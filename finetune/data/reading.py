"""From a piece to checked rows. A new format is one function and one line in READERS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from finetune.data.arrays import read_idx, read_npz
from finetune.data.checks import to_table
from finetune.data.chunks import Chunk, Findings, Request
from finetune.data.cleaning import cleaning_for
from finetune.data.columnar import read_arrow, read_hub, read_parquet, read_saved
from finetune.data.conll import read_conll
from finetune.data.delimited import read_delimited
from finetune.data.files import Piece, fingerprint
from finetune.data.imagefiles import read_images
from finetune.data.jsonfiles import read_json
from finetune.data.labels import settle_labels
from finetune.data.options import DataOptions, ImageOptions
from finetune.data.plain import read_text
from finetune.errors import EnvironmentFailed, UserError, did_you_mean
from finetune.task import Columns

READERS: dict[str, Callable[[Request, Findings], Iterator[Chunk]]] = {
    "csv": read_delimited,
    "tsv": read_delimited,
    "json": read_json,
    "text": read_text,
    "conll": read_conll,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "npz": read_npz,
    "idx": read_idx,
    "images": read_images,
    "folder": read_saved,
    "hub": read_hub,
}


BY_LINES = ("text", "tsv")  # read as CoNLL's form where the task reads words


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
    drops: bool = True,
) -> Request:
    """Return what to read of a piece: the task's columns under the names that the piece has for them.

    `drops` says whether the filters of data.clean drop rows, or every row is wanted.
    """
    others = (columns.target, columns.image, columns.label, group)
    parts = columns.parts
    texts = columns.texts if parts is None else tuple(name for name in columns.texts if name != parts.text)
    wanted = [name for name in (*texts, *(parts.names if parts else ()), *others) if name is not None]
    for where, mapping in (("data.columns", options.columns), (f"columns of {piece.path}", piece.source.columns)):
        for name in mapping:
            if name not in wanted and name != columns.label:
                near = did_you_mean(name, wanted)
                raise UserError(f"{where}.{name}: the task reads no such column, but {', '.join(wanted)}.{near}")
    names = {**options.columns, **piece.source.columns}
    by_words = columns.words is not None and piece.format in BY_LINES
    return Request(
        piece=replace(piece, format="conll") if by_words else piece,
        columns={name: names.get(name, name) for name in wanted},
        texts=columns.texts,
        label=columns.label,
        optional=optional | frozenset(parts.names if parts else ()),
        target=columns.target,
        parts=parts,
        clean=cleaning_for(options.clean, (*columns.texts, *([columns.target] if columns.target else [])), drops),
        encoding=options.encoding,
        sample_by=options.sample_by,
        empty_texts=options.empty_texts,
        streaming=options.streaming and piece.split == "train",
        image=columns.image,
        words=columns.words,
        passage=columns.passage,
        squares=options.image or ImageOptions(),
    )


def read_reads(request: Request, findings: Findings) -> Iterator[Read]:
    """Give checked rows, some thousand at a time."""
    unread = unreadable(request)
    if unread:
        findings.faults.add(request.piece.path, None, unread)
        return
    try:
        for chunk in READERS[request.piece.format](request, findings):
            if chunk.lines:
                table, dropped = to_table(chunk, request, findings)
                rows = table.num_rows + dropped
                if request.clean is not None:
                    table = request.clean.applied(table, request.piece.split, findings.cleaned)
                yield Read(request.piece, table, rows, chunk.classes)
    except PermissionError as error:
        raise EnvironmentFailed(f"{request.piece.path}: may not be read ({error.strerror})") from error


def unreadable(request: Request) -> str | None:
    """Return why a file's format cannot hold what the task reads, or None."""
    if request.parts is not None and request.piece.format in ("npz", "idx", "images", "text"):
        return f"holds no {request.parts.text}s; name a JSONL, Parquet or CSV file"
    if request.piece.format in ("npz", "idx", "images") and request.image is None:
        return f"holds images, and the task reads {', '.join(request.texts)}; name a file of texts"
    if request.piece.format == "conll" and request.words is None:
        return f"holds a word a line, and the task reads {', '.join(request.texts) or 'images'}; name another file"
    if request.piece.format == "csv" and request.words is not None:
        return f'is CSV, which has no lists, and "{request.words}" is one of words; use JSONL, Parquet or CoNLL files'
    if request.piece.format in ("csv", "tsv") and request.passage is not None and request.label in request.columns:
        return f'has cells, and "{request.label}" is a list of answers with their places; use JSON, JSONL or Parquet'
    if request.image is not None and request.piece.format == "text":
        return "is plain text, and the task reads images; name a folder of images, or CSV or JSONL with their paths"
    return None


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
    if request.image is not None:  # paths in a file lead to others, and labels lie beside images
        facts = {**facts, "content": content_digest(table)}
    made = findings.generated.get(piece.place)
    findings.facts[piece.place] = {**facts, "rows": rows, **({"generated": made} if made else {})}
    return Read(piece, table, rows, parts[0].classes if parts else None)


def content_digest(table: pa.Table) -> str:
    """Return the sha256 of all values of a table, row ids aside."""
    digest = hashlib.sha256()
    for name in sorted(set(table.column_names) - {"row_id"}):
        for value in table.column(name).to_pylist():
            digest.update(value if isinstance(value, bytes) else f"{value}\0".encode())
    return digest.hexdigest()


def join(tables: list[pa.Table]) -> pa.Table:
    """Return tables as one; a column that is empty or missing in one takes the type that it has in another."""
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
