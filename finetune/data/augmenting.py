"""Copies of training rows with other words, beside the rows that they are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from finetune.data.cleaning import EXAMPLES, example
from finetune.data.duplicates import comparable, normal_texts
from finetune.data.files import fingerprint
from finetune.editing.augmenting import Rewriter, drawn, read_thesaurus, varied

if TYPE_CHECKING:
    from finetune.data.options import AugmentOptions

Place = tuple[int, int]  # of a row, and the number of its copy


def augmented(
    table: pa.Table,
    texts: Sequence[str],
    options: AugmentOptions,
    seed: int,
    rewriters: Mapping[str, Rewriter] | None = None,
    held: Sequence[pa.Table] = (),
) -> tuple[pa.Table, str]:
    """Return the rows, each followed by its copies, and a sentence on them with examples.

    What a copy is depends on the seed, the row's texts and its number alone, wherever the file lies. A copy that came
    out as the row itself, for it has one word or none that has synonyms, as an earlier copy of it, or as a row that is
    held out, is left out and counted. It bears the row's id with its number: "train.csv:3~1".

    Args:
        table: training rows.
        texts: their columns of text.
        options: of the recipe.
        seed: of the data.
        rewriters: the operations that need a model.
        held: rows of other splits, which nothing of is changed.
    """
    names = [name for name in texts if name in table.column_names]
    columns = {name: table.column(name).to_pylist() for name in names}
    ids = table.column("row_id").to_pylist()
    copies, did = _copies(columns, options, seed, rewriters or {})
    apart = {text for each in held for text in normal_texts(each, names)}
    places, made_ids, shown = [], [], list[str]()
    made: dict[str, list[str]] = {name: [] for name in names}
    left, added = Counter[str](), Counter[str]()
    for place, row_id in enumerate(ids):
        given = {name: columns[name][place] for name in names}
        seen: list[dict[str, str]] = []
        for copy in range(options.copies + 1):
            new = copies[place, copy] if copy else given
            if copy:
                why = "their row" if new == given else "an earlier copy" if new in seen else ""
                if not why and "\x1f".join(comparable(new[name]) for name in names) in apart:
                    why = "a held-out row"
                left[why] += 1
                if why:
                    continue
                added.update(did[place, copy])
            seen.append(new)
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
    return whole, _told(len(table), left, added, shown)


def _copies(
    columns: Mapping[str, list[str]], options: AugmentOptions, seed: int, rewriters: Mapping[str, Rewriter]
) -> tuple[dict[Place, dict[str, str]], dict[Place, set[str]]]:
    """Return the texts of every copy, and the operations that made it."""
    shares, later = options.shares, dict[str, list[tuple[Place, str, str]]]()
    synonyms = read_thesaurus(options.thesaurus) if options.thesaurus is not None else {}
    made: dict[Place, dict[str, str]] = {}
    did: dict[Place, set[str]] = {}
    times = Counter[tuple[str, ...]]()  # equal rows get copies of their own
    for place, row in enumerate(zip(*columns.values(), strict=True)):
        times[row] += 1
        for copy in range(1, options.copies + 1):
            made[place, copy], did[place, copy] = {}, set()
            for name, texts in columns.items():
                own = "\x1f".join([str(seed), *row, str(times[row]), str(copy), name])
                operation, _ = drawn(shares, own)
                did[place, copy].add(operation)
                if operation in rewriters:
                    later.setdefault(operation, []).append(((place, copy), name, own))
                else:
                    made[place, copy][name] = varied(texts[place], shares, synonyms, own)
    for operation, asked in later.items():
        given = [columns[name][place] for (place, _), name, _ in asked]
        told = rewriters[operation].write(given, [own for _, _, own in asked])
        for (where, name, _), text, new in zip(asked, given, told, strict=True):
            made[where][name] = new if new.strip() else text
    return made, did


def _told(rows: int, left: Counter[str], added: Counter[str], shown: Sequence[str]) -> str:
    wanted = left.total()
    lost = [f"{count:,} came out as {why}" for why, count in left.items() if why]
    said = f" of {wanted:,} wanted" if lost else ""
    by = f" ({', '.join(f'{count:,} by {name}' for name, count in sorted(added.items()))})" if len(added) > 1 else ""
    parts = [f"{left['']:,} copies{said} added to {rows:,} train rows{by}", *lost, *shown]
    return f"augment: {'; '.join(parts)}"


def of_thesaurus(name: str) -> dict[str, Any]:
    """Return the fingerprint of a file or folder of synonyms, or the version of nltk's WordNet."""
    if Path(name).exists():
        return fingerprint(name)
    from finetune.editing.wordnet import WordNet

    return {"version": WordNet(name).version}
