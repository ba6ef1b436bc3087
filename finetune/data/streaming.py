"""Training rows that are read while they are trained on, checked as they pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import pyarrow as pa

from finetune.data.chunks import Findings, Request
from finetune.data.duplicates import normal_texts
from finetune.data.faults import Faults, shown
from finetune.data.labels import cast_label, family, settle_labels
from finetune.data.options import DataOptions, Source
from finetune.data.reading import Read, read_reads
from finetune.errors import UserError

NOTES = {  # by data.leakage
    "error": "the first that equals one of validation or test stops the run there",
    "warn": "they are not compared with validation and test",
    "off": "they are not compared with validation and test",
}


def stream_note(options: DataOptions) -> str:
    """Return the sentence on what is checked of streamed rows, and what is not."""
    cleaned = "; what data.clean changes and drops of them is not counted" if options.clean else ""
    return (
        f"train is streamed: its rows are checked as they are read; {NOTES[options.leakage]}; "
        f"duplicates within train and nearly equal rows are not looked for{cleaned}"
    )


def stream_sources(
    requests: list[list[Request]], sources: list[Source], options: DataOptions, held: list[Read]
) -> datasets.IterableDataset:
    """Return the rows of all sources, shuffled in a buffer, mixed by weight or joined. A shard is a file.

    Args:
        requests: for each source, one request a piece.
        held: the rows of the other splits, which the stream must not hold, and whose labels it shares.
    """
    first = [peek(request) for source in requests for request in source]
    label = requests[0][0].label
    if label is not None:
        faults = Faults()
        settle_labels([*first, *held], label, faults)
        faults.raise_any()
    schema = pa.unify_schemas([read.table.schema for read in first], promote_options="permissive")
    features = datasets.Features.from_arrow_schema(schema)
    texts = requests[0][0].texts
    forbidden = {} if options.leakage != "error" else held_texts(held, texts)
    streams = [
        datasets.IterableDataset.from_generator(
            stream_rows, features=features, gen_kwargs={"requests": source, "schema": schema, "held": forbidden}
        )
        for source in requests
    ]
    streams = [stream.shuffle(seed=options.seed, buffer_size=options.shuffle_buffer) for stream in streams]
    whole = interleaved(streams, sources, options.seed)
    return whole if options.max_train_rows is None else whole.take(options.max_train_rows)


def interleaved(streams: list[datasets.IterableDataset], sources: list[Source], seed: int) -> datasets.IterableDataset:
    """Return the streams one after the other, or mixed by weight until the first ends."""
    if len(streams) == 1:
        return streams[0]
    weights = [source.weight or 0.0 for source in sources]
    if not all(weights):
        return datasets.concatenate_datasets(streams)
    shares = [weight / sum(weights) for weight in weights]
    return datasets.interleave_datasets(streams, probabilities=shares, seed=seed, stopping_strategy="first_exhausted")


def peek(request: Request) -> Read:
    """Return the first rows of a piece, checked; UserError names what is wrong with them."""
    findings = Findings(Faults())
    read = next(read_reads(request, findings), None)
    findings.faults.raise_any()
    if read is None:
        raise UserError(f"{request.piece.place}: holds no rows")
    return read


def held_texts(held: list[Read], texts: tuple[str, ...]) -> dict[str, str]:
    """Return {text as it is compared: row id} of rows that training must not see."""
    known: dict[str, str] = {}
    for read in held:
        known.update(zip(normal_texts(read.table, texts), read.table.column("row_id").to_pylist(), strict=True))
    return known


def stream_rows(requests: list[Request], schema: pa.Schema, held: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Give the rows of some pieces, of one schema; UserError at the first that is wrong or held out."""
    for request in requests:
        findings = Findings(Faults())
        for read in read_reads(request, findings):
            findings.faults.raise_any()
            settle_type(read, request.label, schema)
            if held:
                refuse_held(read, request.texts, held)
            yield from read.table.to_pylist()
        findings.faults.raise_any()


def settle_type(read: Read, label: str | None, schema: pa.Schema) -> None:
    """Give a streamed part's labels the type that the first rows had; UserError names a row that has another."""
    if label is None or label not in read.table.column_names:
        return
    wanted, before = schema.field(label).type, read.table.column(label)
    if wanted == before.type:
        return
    faults = Faults()
    if family(wanted) == "number" and (read.untyped or family(before.type) == "number"):
        cast_label(read, label, wanted)
    after = read.table.column(label)
    for row, value in enumerate(after.to_pylist()):
        if value is None or after.type != wanted:
            message = f'column "{label}" is {shown(before[row].as_py())} where the first rows have {wanted}'
            faults.add_at(read.table.column("row_id")[row].as_py(), f"{message}; write all labels alike")
    faults.raise_any()


def refuse_held(read: Read, texts: tuple[str, ...], held: dict[str, str]) -> None:
    """Raise UserError if a row of validation or test comes by."""
    for text, row_id in zip(normal_texts(read.table, texts), read.table.column("row_id").to_pylist(), strict=True):
        if text in held:
            raise UserError(
                f"{row_id}: the text is that of {held[text]}; remove it from train, or set data.leakage: warn"
            )
