"""Rows of a split that also stand in another, as they are or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from finetune.data.duplicates import normal_texts, thing
from finetune.data.options import DataOptions
from finetune.data.similarity import NearIndex
from finetune.errors import UserError

ORDER = ("train", "validation", "test")


@dataclass
class Leak:
    """What two splits share: pairs of (row of the later, row of the earlier split)."""

    earlier: str
    later: str
    rows: int  # of the later split
    against: int  # rows of the earlier split
    same: list[tuple[str, str]] = field(default_factory=list)  # equal text, equal label (or no labels)
    clashing: list[tuple[str, str]] = field(default_factory=list)  # equal text, another label
    near: list[tuple[str, str]] = field(default_factory=list)  # nearly equal text
    what: str = "text"  # or "image": those are compared by their pixels, exactly

    @property
    def exact_share(self) -> float:
        """The share of the later split's rows with a text of the earlier."""
        return (len(self.same) + len(self.clashing)) / self.rows

    @property
    def near_share(self) -> float:
        """The same, with nearly equal texts."""
        return self.exact_share + len(self.near) / self.rows

    def sentence(self) -> str:
        """Return one line: where, how many, of which kind."""
        compared = f"{self.rows:,} rows of {self.later} against {self.against:,} of {self.earlier}"
        kinds = ((self.same, "equal"), (self.clashing, "equal but for another label"), (self.near, "nearly equal"))
        found = [(pairs, kind) for pairs, kind in kinds if pairs]
        if not found:
            return (
                f"leakage: none; {compared} compared, {'exactly and by MinHash' if self.what == 'text' else 'exactly'}"
            )
        counts = ", ".join(
            f"{len(pairs):,} ({len(pairs) / self.rows:.1%}) {kind}, {pairs[0][0]} = {pairs[0][1]}"
            for pairs, kind in found
        )
        return f"leakage: of {compared}: {counts}"


def find_leaks(tables: dict[str, pa.Table], texts: Sequence[str], label: str | None, threshold: float) -> list[Leak]:
    """Hold every later split against every earlier one, each row, exactly and, if it is of texts, by MinHash.

    Validation was cut out of train with equal and nearly equal texts on one side when its rows are Holdout's; then the
    comparison is the proof.
    """
    known = [name for name in ORDER if name in tables and tables[name].num_rows]
    keys = {name: normal_texts(tables[name], texts) for name in known}
    leaks = []
    for at, later in enumerate(known[1:], 1):
        what = thing(tables[later], texts)
        index = NearIndex(threshold, dict.fromkeys(keys[later]) if what == "text" else ())
        for earlier in known[:at]:
            leak = Leak(earlier, later, tables[later].num_rows, tables[earlier].num_rows, what=what)
            compare(leak, (tables[earlier], keys[earlier]), (tables[later], keys[later]), label, index)
            leaks.append(leak)
    return leaks


def compare(
    leak: Leak,
    earlier: tuple[pa.Table, list[str]],
    later: tuple[pa.Table, list[str]],
    label: str | None,
    index: NearIndex,
) -> None:
    """Fill in what two splits share. `index` holds the later split's texts, each once."""
    (table, texts), (other, others) = earlier, later
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    near: dict[str, int] = {}
    for text, row in first.items():
        for place in index.near(text):
            near.setdefault(index.texts[place], row)
    ids, other_ids = table.column("row_id"), other.column("row_id")
    labels = [each.column(label).to_pylist() if label in each.column_names else None for each in (table, other)]
    for row, text in enumerate(others):
        if text in first:
            pair = (other_ids[row].as_py(), ids[first[text]].as_py())
            clash = labels[0] and labels[1] and labels[0][first[text]] != labels[1][row]
            (leak.clashing if clash else leak.same).append(pair)
        elif text in near:
            leak.near.append((other_ids[row].as_py(), ids[near[text]].as_py()))


def settle_leaks(leaks: list[Leak], options: DataOptions) -> list[str]:
    """Return a sentence for each pair of splits.

    Raises:
        UserError: more is shared than `leakage_exact` or `leakage_near` tolerates, and `leakage` is "error".
    """
    for leak in leaks if options.leakage == "error" else []:
        for share, limit, name in (
            (leak.exact_share, options.leakage_exact, "leakage_exact"),
            (leak.near_share, options.leakage_near, "leakage_near"),
        ):
            if share > limit:
                first = next(pairs[0] for pairs in (leak.same, leak.clashing, leak.near) if pairs)
                raise UserError(
                    f"{first[0]}: the {leak.what} is that of {first[1]}; {leak.sentence()}; that is more than "
                    f"data.{name} {limit:.1%}; remove them from {leak.earlier}, or set data.leakage: warn"
                )
    return [leak.sentence() for leak in leaks]
