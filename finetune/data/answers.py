"""Answers that stand in a text: SQuAD's {text, answer_start}, each held against the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from finetune.data.faults import shown

KIND = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int64()))])
WANTED = 'answers as {"text": ["…"], "answer_start": [0]}, both empty where the text has none'


def answers_array(values: list[Any], passages: list[Any], note: Callable[[int, str], None], may_miss: bool) -> pa.Array:
    """Return answers as Arrow structs of two lists, `text` and `answer_start` (characters).

    A list of {text, answer_start}, as in SQuAD's own files, and a single answer without a list are taken as well. What
    is no answer, or does not stand where it says, is noted and null.
    """
    kept: list[Any] = []
    for at, (value, passage) in enumerate(zip(values, passages, strict=True)):
        if (value is None and may_miss) or not isinstance(passage, str):  # a passage that is no text is noted already
            kept.append(None)
            continue
        pairs = pairs_of(value)
        if pairs is None:
            note(at, f"is {shown(value, 40)}; it must hold {WANTED}")
        else:
            wrong = next((said for said in (misplaced(*pair, passage) for pair in pairs) if said), None)
            if wrong is not None:
                note(at, wrong)
                pairs = None
        kept.append(None if pairs is None else {"text": [p[0] for p in pairs], "answer_start": [p[1] for p in pairs]})
    return pa.array(kept, KIND)


def pairs_of(value: Any) -> list[tuple[str, int]] | None:
    """Return (text, where it begins) of each answer, or None where a value holds no answers."""
    if isinstance(value, list):
        parts = [pairs_of(part) for part in value]
        if any(part is None or len(part) != 1 for part in parts):
            return None
        return [pair for part in parts for pair in part or ()]
    if not isinstance(value, dict) or not {"text", "answer_start"} <= set(value):
        return None
    texts, starts = (each if isinstance(each, list) else [each] for each in (value["text"], value["answer_start"]))
    sound = all(type(text) is str for text in texts) and all(type(start) is int for start in starts)
    return list(zip(texts, starts, strict=True)) if sound and len(texts) == len(starts) else None


def misplaced(text: str, start: int, passage: str) -> str | None:
    """Return what is wrong with an answer's place, or None."""
    if not text.strip():
        return "has an empty answer; where the text has none, write empty lists"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "has an answer with half of a surrogate pair, no character"
    if start >= 0 and passage[start : start + len(text)] == text:
        return None
    places = [place for place in range(len(passage)) if passage.startswith(text, place)]
    near = min(places, key=lambda place: abs(place - start), default=None)
    there = "the text ends before"
    if 0 <= start < len(passage):
        there = f"{shown(passage[start : start + len(text)], 40)} stands there"
    fix = "it stands nowhere in it" if near is None else f"it stands at {near}"
    return f"has the answer {shown(text, 40)} at {start}, and {there}; {fix}"
