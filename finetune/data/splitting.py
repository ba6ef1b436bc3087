"""Validation rows cut out of the training rows, so that no text stands on both sides."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from finetune.data.duplicates import normal_texts
from finetune.data.options import Holdout
from finetune.data.similarity import near_pairs
from finetune.errors import UserError


def hold_out(
    table: pa.Table, holdout: Holdout, texts: Sequence[str], label: str | None, seed: int, threshold: float | None
) -> tuple[pa.Table, pa.Table, list[str]]:
    """Return (rows to train on, rows to validate on, sentences); both keep the order of the file.

    Args:
        threshold: Jaccard similarity from which texts are kept on one side; None keeps equal texts together alone.

    Raises:
        UserError: a side would have no rows, or labels are fractions and cannot be stratified.
    """
    clusters = clusters_of(linked_rows(table, holdout.group, texts, threshold), table.num_rows)
    strata = strata_of(table, clusters, label if holdout.stratify else None)
    rng, wanted, chosen = random.Random(seed), 0.0, []
    for stratum in strata:
        rng.shuffle(stratum)
        wanted += holdout.fraction * sum(map(len, stratum))  # what one stratum gives too little, the next one gives
        taken = take_clusters(stratum, wanted)
        wanted -= sum(map(len, taken))
        chosen += taken
    held = {row for cluster in chosen for row in cluster}
    asked = holdout.fraction * table.num_rows
    if not held or len(held) == table.num_rows:
        raise UserError(
            f"data.validation.fraction: {holdout.fraction} of {table.num_rows} rows in {len(clusters)} groups that "
            "stay together leaves a side empty; give more rows, another fraction, or a validation file"
        )
    notes = [] if abs(len(held) - asked) <= max(1, 0.1 * asked) else [uneven(clusters, len(held), asked)]
    sides = ([row for row in range(table.num_rows) if (row in held) is side] for side in (False, True))
    train, validation = (table.take(side) for side in sides)
    return train, validation, notes


def uneven(clusters: list[list[int]], held: int, asked: float) -> str:
    """Return the sentence on a validation split of another size than was asked for."""
    largest = max(map(len, clusters))
    return f"validation has {held:,} rows where the fraction asks for {asked:,.0f}; {largest:,} rows stay together"


def linked_rows(
    table: pa.Table, group: str | None, texts: Sequence[str], threshold: float | None
) -> Iterable[tuple[int, int]]:
    """Give pairs of rows that must stay together: of one text, of one group, of nearly one text."""
    keys = normal_texts(table, texts)
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        yield row, first.setdefault(key, row)
    if group is not None:
        leader: dict[Any, int] = {}
        for row, value in enumerate(table.column(group).to_pylist()):
            yield row, leader.setdefault(value, row)
    if threshold is not None:
        rows = list(first.values())
        for one, other in near_pairs(list(first), threshold):
            yield rows[one], rows[other]


def clusters_of(links: Iterable[tuple[int, int]], rows: int) -> list[list[int]]:
    """Return the rows in connected components, each in order, by their first row."""
    parent = list(range(rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, other in links:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    clusters: dict[int, list[int]] = defaultdict(list)
    for row in range(rows):
        clusters[root(row)].append(row)
    return list(clusters.values())


def strata_of(table: pa.Table, clusters: list[list[int]], label: str | None) -> list[list[list[int]]]:
    """Return the clusters by label, that of most of a cluster's rows; in one stratum when there is no label."""
    if label is None:
        return [clusters]
    column = table.column(label)
    if pa.types.is_floating(column.type):
        raise UserError(f'data.validation.stratify: column "{label}" holds fractions, not classes; leave stratify out')
    labels = [str(value) for value in column.to_pylist()]
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for cluster in clusters:
        counts = Counter(labels[row] for row in cluster)
        strata[min(counts, key=lambda name: (-counts[name], name))].append(cluster)
    return [strata[name] for name in sorted(strata)]


def take_clusters(stratum: list[list[int]], wanted: float) -> list[list[int]]:
    """Return clusters, in order, whose rows come as near to `wanted` as they can; never the whole stratum."""
    taken: list[list[int]] = []
    count = 0
    for cluster in stratum:
        nearer = abs(count + len(cluster) - wanted) < abs(count - wanted)
        if nearer and len(taken) < len(stratum) - 1:
            taken.append(cluster)
            count += len(cluster)
    return taken
