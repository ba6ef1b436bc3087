"""Texts that are nearly equal: MinHash finds candidates, the exact Jaccard similarity decides."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from datasketch import MinHash, MinHashLSH

WIDTH = 5  # characters of a shingle
PERMUTATIONS = 128
MISSED = 1e-3  # chance, at most, that a pair of exactly the threshold's similarity is no candidate


def shingles(text: str) -> set[str]:
    """Return every run of WIDTH characters of a text; the text itself when it is shorter."""
    return {text[at : at + WIDTH] for at in range(max(1, len(text) - WIDTH + 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    """Return the share of two sets' members that both have."""
    return len(one & other) / len(one | other)


def bands(threshold: float) -> tuple[int, int]:
    """Return (bands, rows a band): the longest bands that still miss at most MISSED.

    Two sets of similarity s share a band of r rows with chance 1 − (1 − s^r)^b (Leskovec et al., Mining of Massive
    Datasets, §3.4.2). datasketch's own choice for 0.9 weighs misses and false alarms alike and misses 69 %.
    """
    fitting = [
        (PERMUTATIONS // rows, rows)
        for rows in range(1, PERMUTATIONS // 2 + 1)
        if (1 - threshold**rows) ** (PERMUTATIONS // rows) <= MISSED
    ]
    return fitting[-1] if fitting else (PERMUTATIONS, 1)


def hash_shingle(shingle: str) -> int:
    """Return 32 bits; CRC-32 is enough, as datasketch mixes them, and it is the same on every machine."""
    return zlib.crc32(shingle.encode())


class NearIndex:
    """Texts that others are held against; each has a number, in the order in which it was added."""

    def __init__(self, threshold: float, texts: Iterable[str] = ()) -> None:
        self.texts: list[str] = []
        self.threshold = threshold
        self._known: set[str] = set()  # shingles of all texts
        self._index = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))
        self._blank = MinHash(num_perm=PERMUTATIONS, hashfunc=hash_shingle)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Add a text."""
        own = shingles(text)
        self._insert(text, own, self._sketch(own))

    def near(self, text: str) -> list[int]:
        """Return the numbers of the texts that are similar enough."""
        own = shingles(text)
        # J(A, B) >= t needs t of A in B: most texts fail on all texts' shingles at once, at a tenth of a sketch's cost.
        if len(own - self._known) > (1 - self.threshold) * len(own) + 1e-9:
            return []
        return self._near(own, self._sketch(own))

    def near_then_add(self, text: str) -> list[int]:
        """Return the numbers of the texts so far that are similar enough, and add this one."""
        own = shingles(text)
        sketch = self._sketch(own)
        found = self._near(own, sketch)
        self._insert(text, own, sketch)
        return found

    def _sketch(self, own: set[str]) -> MinHash:
        sketch = self._blank.copy()
        sketch.update_batch(own)
        return sketch

    def _insert(self, text: str, own: set[str], sketch: MinHash) -> None:
        self._index.insert(len(self.texts), sketch, check_duplication=False)
        self.texts.append(text)
        self._known |= own

    def _near(self, own: set[str], sketch: MinHash) -> list[int]:
        return [at for at in sorted(self._index.query(sketch)) if self._similar(own, self.texts[at])]

    def _similar(self, own: set[str], text: str) -> bool:
        if max(1, len(text) - WIDTH + 1) < self.threshold * len(own):  # cheap: it has too few shingles
            return False
        return jaccard(own, shingles(text)) >= self.threshold


def near_pairs(texts: Iterable[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Give (place, earlier place) of every two texts that are nearly equal."""
    index = NearIndex(threshold)
    for place, text in enumerate(texts):
        yield from ((place, other) for other in index.near_then_add(text))
