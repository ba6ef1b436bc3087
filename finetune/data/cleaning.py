"""The steps of `data.clean` over rows, with an account of what each changed and dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa

from finetune.data.faults import shown
from finetune.editing import Step, plan

EXAMPLES = 3  # of each step
WIDTH = 44  # characters of a text that an example shows
LAST = 1_000_000  # after every step of a recipe
EMPTY = "left empty"  # rows whose text is nothing once it is clean


@dataclass
class Tally:
    """What one step did to the rows of one split."""

    rows: int = 0  # that came to it
    changed: int = 0
    dropped: int = 0
    examples: list[str] = field(default_factory=list)


Tallies = dict[tuple[str, int, str], Tally]  # by split, number of the step, its name


@dataclass(frozen=True)
class Cleaning:
    """What is to be done to the rows of a piece; travels to other processes, so it holds plain values."""

    steps: str  # as the recipe has them, in JSON
    texts: tuple[str, ...]  # our names of the columns
    drops: bool = True  # false: every row is answered, whatever a filter says

    def applied(self, table: pa.Table, split: str, tallies: Tallies) -> pa.Table:
        """Return the rows that stay, their texts edited; every step sees what those before it left."""
        names = [name for name in self.texts if name in table.column_names]
        columns = {name: table.column(name).to_pylist() for name in names}
        ids, kept = table.column("row_id").to_pylist(), list(range(table.num_rows))
        hiding = [step.edit for step in _made(self.steps) if step.edit is not None and not step.shows_before]
        for number, step in enumerate(_made(self.steps)):
            tally = tallies.setdefault((split, number, step.name), Tally())
            tally.rows += len(kept)
            if step.edit is not None:
                _edit(step, columns, kept, ids, tally, hiding)
            elif self.drops:
                kept = _filtered(step, columns, kept, ids, tally, hiding)
        if self.drops:
            kept = self._without_empty(columns, kept, ids, tallies.setdefault((split, LAST, EMPTY), Tally()))
        for name in names:
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(columns[name], pa.string()))
        return table if len(kept) == table.num_rows else table.take(pa.array(kept, pa.int64()))

    def _without_empty(self, columns: dict[str, list[str]], kept: list[int], ids: list[str], tally: Tally) -> list[int]:
        left = [at for at in kept if all(texts[at].strip() for texts in columns.values())]
        tally.rows += len(kept)
        tally.dropped += len(kept) - len(left)
        gone = sorted(set(kept) - set(left))
        tally.examples += [ids[at] for at in gone[: EXAMPLES - len(tally.examples)]]
        return left


@lru_cache(maxsize=8)
def _made(steps: str) -> tuple[Step, ...]:
    return plan(json.loads(steps))


Edits = list[Callable[[str], str]]


def _edit(
    step: Step, columns: dict[str, list[str]], kept: list[int], ids: list[str], tally: Tally, hiding: Edits
) -> None:
    """Edit the rows that are kept; where a step of the recipe hides something, an example of another is its place."""
    assert step.edit is not None
    for at in kept:
        touched = False
        for texts in columns.values():
            before, after = texts[at], step.edit(texts[at])
            if after == before:
                continue
            if len(tally.examples) < EXAMPLES and not (hiding and step.shows_before and touched):
                tally.examples.append(ids[at] + _shown_of(step, before, after, hiding))
            texts[at], touched = after, True
        tally.changed += touched


def _shown_of(step: Step, before: str, after: str, hiding: Edits) -> str:
    if step.shows_before:
        return "" if hiding else f": {example(before, after)}"
    for hide in hiding:
        after = hide(after)
    return f": {example(before, after, shows_before=False)}"


def _filtered(
    step: Step, columns: dict[str, list[str]], kept: list[int], ids: list[str], tally: Tally, hiding: Edits
) -> list[int]:
    assert step.keep is not None
    left = []
    for at in kept:
        failing = next((texts[at] for texts in columns.values() if not step.keep(texts[at])), None)
        if failing is None:
            left.append(at)
            continue
        tally.dropped += 1
        if len(tally.examples) < EXAMPLES:
            tally.examples.append(ids[at] if hiding else f"{ids[at]}: {shown(failing, WIDTH)}")
    return left


def example(before: str, after: str, shows_before: bool = True) -> str:
    """Return how a text was changed, where it first was: "before" → "after", or what it is now alone."""
    same = next((at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    start = max(0, (min(len(before), len(after)) if same is None else same) - WIDTH // 3)
    said = [
        ("… " if start else "") + text[start : start + WIDTH] + (" …" if len(text) > start + WIDTH else "")
        for text in (before, after)
    ]
    told = shown(said[1], 2 * WIDTH)
    return f"{shown(said[0], 2 * WIDTH)} → {told}" if shows_before else told


def told(tallies: Tallies, split: str) -> list[str]:
    """Return a sentence on each step that did something to a split, with its examples."""
    notes = []
    for (where, _, name), tally in sorted(tallies.items()):
        if where != split or not (tally.changed or tally.dropped):
            continue
        did = f"changed {tally.changed:,}" if tally.changed else f"dropped {tally.dropped:,}"
        notes.append(f"clean: {name} {did} of {tally.rows:,} {split} rows; {'; '.join(tally.examples)}")
    return notes


def dropped(tallies: Tallies, split: str) -> list[tuple[str, int]]:
    """Return the steps that dropped rows of a split, in order, and how many."""
    found = [(name, tally.dropped) for (where, _, name), tally in sorted(tallies.items()) if where == split]
    return [(name, count) for name, count in found if count]


def cleaning_for(steps: Sequence[Any], texts: tuple[str, ...], drops: bool) -> Cleaning | None:
    """Return what is to be done, or None where a recipe says nothing."""
    return Cleaning(json.dumps(list(steps)), texts, drops) if steps else None
