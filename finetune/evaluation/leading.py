"""The first sentences of a text: the summary that is hard to beat."""

from __future__ import annotations

import re
from collections.abc import Iterable

END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text, each with the white space that follows it; "" has one."""
    starts = [0, *(match.end() for match in END.finditer(text) if match.end() < len(text))]
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def usual_count(texts: Iterable[str]) -> int:
    """Return the median number of sentences of texts, at least 1."""
    counts = sorted(len(sentences_of(text)) for text in texts)
    return counts[len(counts) // 2] if counts else 1
