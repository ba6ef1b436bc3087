"""Several sources become one: joined, or mixed by weight."""

from __future__ import annotations

import datasets
import pyarrow as pa

from finetune.data.options import Source
from finetune.data.reading import join

STOP = "first_exhausted"  # no row comes twice; `all_exhausted` would repeat the rows of small sources


def mix(tables: list[pa.Table], sources: list[Source], seed: int) -> tuple[pa.Table, str | None]:
    """Return the rows of all sources: one after the other, or drawn by weight until the first source is used up.

    Args:
        tables, sources: one table a source, in the same order.

    Returns:
        The rows, and a sentence on the mixture when there is one.
    """
    if len(sources) < 2 or sources[0].weight is None:
        return join(tables), None
    weights = [source.weight or 0.0 for source in sources]
    shares = [weight / sum(weights) for weight in weights]
    merged = join(tables)  # one schema for all
    starts = [sum(table.num_rows for table in tables[:at]) for at in range(len(tables))]
    numbered = [
        datasets.Dataset(pa.table({"at": pa.array(range(start, start + table.num_rows), pa.int64())}))
        for start, table in zip(starts, tables, strict=True)
    ]
    drawn = datasets.interleave_datasets(numbered, probabilities=shares, seed=seed, stopping_strategy=STOP)
    mixed = merged.take(drawn.with_format("arrow")[:].column("at"))
    names = ", ".join(f"{source.path} {share:.0%}" for source, share in zip(sources, shares, strict=True))
    note = f"train mixes {names} until the first is used up: {mixed.num_rows:,} of {merged.num_rows:,} rows, none twice"
    return mixed, note
