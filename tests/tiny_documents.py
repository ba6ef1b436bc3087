"""Documents of a few sentences, for pairs of which one may follow the other."""

from __future__ import annotations

import random

from tiny import BAD, FILLER, GOOD


def documents(count: int, seed: int) -> list[dict[str, str]]:
    """Return rows of two to five sentences; in one document all are of good words or all of bad ones."""
    chooser = random.Random(seed)
    rows = []
    for number in range(count):
        words = (GOOD, BAD)[number % 2]
        made = [" ".join([*chooser.choices(FILLER, k=2), *chooser.choices(words, k=2)]) for _ in range(2 + number % 4)]
        rows.append({"text": f"n{seed}x{number} " + ". ".join(made) + "."})
    return rows
