"""Copies of training rows with other words, beside the rows that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from finetune.data.cleaning import EXAMPLES, example
from finetune.editing.augmenting import OPERATIONS, read_thesaurus, varied

if TYPE_CHECKING:
    from finetune.data.options import AugmentOptions


def augmented(table: pa.Table, texts: Sequence[str], options: AugmentOptions, seed: int) -> tuple[pa.Table, str]:
    """Return the rows, each followed by its copies, and a sentence on them with examples.

    What a copy is depends on the seed, the row's id and its number alone. A copy that came out as the row itself, for
    it has one word or none that has synonyms, is left out. It bears the row's id with its number: "train.csv:3~1".
    """
    shares = {name: getattr(options, name) for name in OPERATIONS}
    synonyms = read_thesaurus(Path(options.thesaurus)) if options.thesaurus is not None else {}
    names = [name for name in texts if name in table.column_names]
    columns = {name: table.column(name).to_pylist() for name in names}
    ids = table.column("row_id").to_pylist()
    places, made_ids, shown = [], [], list[str]()
    made: dict[str, list[str]] = {name: [] for name in names}
    for place, row_id in enumerate(ids):
        given = {name: columns[name][place] for name in names}
        for copy in range(options.copies + 1):
            new = given if copy == 0 else _copied(given, shares, synonyms, f"{seed}\x1f{row_id}\x1f{copy}")
            if copy and new == given:
                continue
            places.append(place)
            made_ids.append(f"{row_id}~{copy}" if copy else row_id)
            for name in names:
                made[name].append(new[name])
            if copy and len(shown) < EXAMPLES:
                name = next(name for name in names if new[name] != given[name])
                shown.append(f"{row_id}: {example(given[name], new[name])}")
    whole = table.take(pa.array(places, pa.int64()))
    for name, values in {**made, "row_id": made_ids}.items():
        whole = whole.set_column(whole.column_names.index(name), name, pa.array(values, pa.string()))
    added = len(whole) - len(table)
    wanted = f" of {options.copies * len(table):,} wanted" if added < options.copies * len(table) else ""
    return whole, f"augment: {added:,} copies{wanted} added to {len(table):,} train rows; {'; '.join(shown)}"


def _copied(
    given: dict[str, str], shares: dict[str, float], synonyms: dict[str, tuple[str, ...]], seed: str
) -> dict[str, str]:
    return {name: varied(text, shares, synonyms, f"{seed}\x1f{name}") for name, text in given.items()}
