"""Files and folders that hold columns: Parquet, Arrow, `save_to_disk`, and data sets on the Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as parquet

from finetune.data.chunks import Chunk, Findings, Request, present_columns
from finetune.data.files import fingerprint, nearest_file
from finetune.errors import EnvironmentFailed, UserError, did_you_mean

OTHER_NAMES = {"validation": ("valid", "val", "dev")}  # splits that stand for ours when a data set has no such split


def read_parquet(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give the rows of a Parquet file; lines are row numbers from 1."""
    path = request.piece.path
    try:
        with parquet.ParquetFile(path) as file:
            columns = present_columns(request, file.schema_arrow.names, None, findings.faults)
            if columns is not None:
                batches = file.iter_batches(batch_size=request.rows, columns=list(columns.values()))
                yield from chunks(batches, file.schema_arrow, columns, request, findings)
    except (pa.ArrowInvalid, OSError) as error:
        findings.faults.add(path, None, f"is no readable Parquet file: {first_line(error)}")


def read_arrow(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give the rows of an Arrow file, in the file (Feather 2) or the stream form; lines are row numbers from 1."""
    path = request.piece.path
    try:
        with pa.OSFile(path) as source:
            magic = source.read(6)
            source.seek(0)
            reader = pa.ipc.open_file(source) if magic == b"ARROW1" else pa.ipc.open_stream(source)
            columns = present_columns(request, reader.schema.names, None, findings.faults)
            if columns is not None:
                count = reader.num_record_batches if magic == b"ARROW1" else None
                batches = reader if count is None else (reader.get_batch(at) for at in range(count))
                yield from chunks(batches, reader.schema, columns, request, findings)
    except (pa.ArrowInvalid, OSError) as error:
        findings.faults.add(path, None, f"is no readable Arrow file: {first_line(error)}")


def read_saved(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give the rows of a folder that `save_to_disk` wrote; of one with splits, those of the source's split."""
    path = request.piece.path
    try:
        saved = datasets.load_from_disk(path)
    except (FileNotFoundError, ValueError, OSError, pa.ArrowInvalid) as error:
        findings.faults.add(path, None, f"is no readable save_to_disk folder: {first_line(error)}")
        return
    if isinstance(saved, datasets.DatasetDict):
        saved = saved[split_of(list(saved), request)]
    yield from of_dataset(saved, request, findings)


def split_of(known: list[str], request: Request) -> str:
    """Return the split that is meant: the source's, else the one that it is used for, else the only one."""
    piece = request.piece
    asked = piece.source.split or piece.split
    if asked in known:
        return asked
    if piece.source.split is None:
        others = [name for name in OTHER_NAMES.get(piece.split, ()) if name in known]
        if others:
            return others[0]
    near = did_you_mean(asked, known)
    raise UserError(
        f'data.{piece.split}: {piece.path} has no split "{asked}"; its splits: {", ".join(known)}.{near}'
        f" Say data.{piece.split}: {{path: {piece.path}, split: NAME}}."
    )


def read_hub(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give the rows of a Hub data set at the source's revision. No code of the data set is ever run."""
    loaded = load_hub(request)
    if isinstance(loaded, datasets.IterableDataset) and loaded.features is None:
        raise UserError(f"data.train: {request.piece.path} does not say its columns, so it cannot be streamed")
    findings.facts[request.piece.place] = {} if request.streaming else hub_facts(loaded)
    yield from of_dataset(loaded, request, findings)


def load_hub(request: Request) -> datasets.Dataset | datasets.IterableDataset:
    """Return one split of a Hub data set: memory-mapped from its download, or streamed."""
    piece, source = request.piece, request.piece.source
    where = f"data.{piece.split}: {piece.path}"
    try:
        loaded = datasets.load_dataset(
            piece.path, name=source.name, revision=source.revision, streaming=request.streaming
        )
    except datasets.exceptions.DatasetNotFoundError as error:
        near = nearest_file(piece.path)
        raise UserError(f"{where}: no such file here, nor data set on the Hub ({first_line(error)}).{near}") from error
    except (ConnectionError, TimeoutError) as error:
        near = nearest_file(piece.path)
        raise EnvironmentFailed(
            f"{where}: no such file, and the Hub is out of reach ({first_line(error)}).{near}"
        ) from error
    except (ValueError, RuntimeError) as error:  # an unknown configuration; a data set that is a script
        raise UserError(f"{where}: {first_line(error)}") from error
    return loaded[split_of(list(loaded), request)]


def hub_facts(dataset: datasets.Dataset) -> dict[str, Any]:
    """Return what names a Hub data set's content: the commit that it came from, and sha256 and size of what is here."""
    sums = dataset.info.download_checksums or {}
    commits = {name.split("@", 1)[1].split("/", 1)[0] for name in sums if "@" in name}
    here = [fingerprint(file["filename"]) for file in dataset.cache_files]
    digest = hashlib.sha256("".join(file["sha256"] for file in here).encode()).hexdigest()
    size = sum(file["bytes"] for file in here)
    return {"revision": commits.pop() if len(commits) == 1 else None, "sha256": digest, "bytes": size}


def of_dataset(
    dataset: datasets.Dataset | datasets.IterableDataset, request: Request, findings: Findings
) -> Iterator[Chunk]:
    """Give the rows of a data set; lines are row numbers from 1."""
    columns = present_columns(request, dataset.column_names, None, findings.faults)
    if columns is None:
        return
    chosen = dataset.select_columns(list(columns.values()))
    tables = chosen.with_format("arrow").iter(request.rows)
    yield from chunks(tables, chosen.features.arrow_schema, columns, request, findings)


def chunks(
    batches: Iterable[Any], schema: pa.Schema, columns: dict[str, str], request: Request, findings: Findings
) -> Iterator[Chunk]:
    """Give chunks of Arrow tables or batches; numbers of a ClassLabel (or a list of it) become names, −1 None."""
    written = b"huggingface" in (
        schema.metadata or {}
    )  # by the datasets library, which keeps the names of classes there
    features = datasets.Features.from_arrow_schema(schema) if written else {}
    classes = {ours: features.get(theirs) for ours, theirs in columns.items()}
    names = {ours: each.names for ours, each in classes.items() if isinstance(each, datasets.ClassLabel)}
    listed = {
        ours: each.feature.names
        for ours, each in classes.items()
        if isinstance(each, datasets.List) and isinstance(each.feature, datasets.ClassLabel)
    }
    row = 0
    for batch in batches:
        values = {ours: batch.column(theirs).to_pylist() for ours, theirs in columns.items()}
        for ours, known in names.items():
            values[ours] = [named(value, known) for value in values[ours]]
        for ours, known in listed.items():
            values[ours] = [part and [named(value, known) for value in part] for part in values[ours]]
        yield Chunk(list(range(row + 1, row + 1 + len(batch))), values, names.get(request.label or ""))
        row += len(batch)
    if row == 0:
        findings.faults.add(request.piece.path, None, "holds no rows")


def named(value: int | None, names: list[str]) -> str | None:
    """Return the name of a class, None where a row has none."""
    return names[value] if value is not None and value >= 0 else None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
