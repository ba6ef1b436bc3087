"""Every row is looked at once, while it is read: texts are text and not empty, labels are there and of one kind."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as compute

from finetune.data.answers import answers_array
from finetune.data.chunks import Chunk, Findings, Request
from finetune.data.faults import shown
from finetune.task import Parts

KINDS = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list", type(None): "missing"}
LARGEST = 2**63 - 1
SURROGATES = re.compile("[\ud800-\udfff]")


def to_table(chunk: Chunk, request: Request, findings: Findings) -> tuple[pa.Table, int]:
    """Return the rows as an Arrow table with `row_id`, and how many were dropped for an empty text.

    Rows that are wrong are noted as faults and left out, so that reading can go on to find others.
    """
    place = request.piece.place
    bad: set[int] = set()
    empty: set[int] = set()
    arrays: dict[str, pa.Array] = {}
    if request.parts is not None:
        arrays[request.parts.text] = made_texts(chunk, request.parts, bad, findings, place)
    for name, values in chunk.columns.items():
        if request.parts is not None and name in request.parts.names:
            continue
        column = request.columns[name]

        def note(at: int, message: str, column: str = column) -> None:
            bad.add(at)
            if chunk.files is None:
                findings.faults.add(place, chunk.lines[at], f'column "{column}" {message}')
            else:
                findings.faults.add(chunk.files[at], None, message)

        if name == request.image:
            arrays[name] = image_array(values, note, request, findings)
        elif name == request.words:
            arrays[name] = words_array(values, note)
            empty |= empty_texts(spoken(arrays[name]), bad, note, request.empty_texts)
        elif name in (*request.texts, request.target):
            arrays[name] = text_array(values, note)
            empty |= empty_texts(arrays[name], bad, note, request.empty_texts)
        elif name == request.label and request.passage is not None:
            arrays[name] = answers_array(values, chunk.columns[request.passage], note, name in request.optional)
        elif name == request.label:
            arrays[name] = label_array(values, note, may_miss=name in request.optional)
        else:
            arrays[name] = group_array(values, note)
    arrays["row_id"] = pa.array(chunk.files or [f"{place}:{line}" for line in chunk.lines], pa.string())
    table = pa.table(arrays)
    if bad or empty:
        table = table.filter(pa.array([at not in bad and at not in empty for at in range(table.num_rows)]))
    return table, len(empty - bad)


Note = Callable[[int, str], None]
WORDS = 'a list of words, such as ["a", "word"]'


def text_array(values: list[Any], note: Note) -> pa.Array:
    """Return texts as Arrow strings; what is no text is noted and null."""
    if set(map(type, values)) - {str}:
        values = [value if isinstance(value, str) else None for value in checked(values, (str,), "a text", note)]
    return string_array(values, note)


def words_array(values: list[Any], note: Note) -> pa.Array:
    """Return lists of words as Arrow lists of strings; what is none is noted and null."""
    kept: list[list[str] | None] = []
    for at, value in enumerate(checked(values, (list,), WORDS, note)):
        odd = [word for word in value if type(word) is not str] if isinstance(value, list) else []
        if odd:
            note(at, f"holds {shown(odd[0], 30)} among its words; it must hold {WORDS}")
        kept.append(value if isinstance(value, list) and not odd else None)
    try:
        return pa.array(kept, pa.list_(pa.string()))
    except UnicodeEncodeError:
        for at, words in enumerate(kept):
            if any(word.encode(errors="ignore") != word.encode(errors="replace") for word in words or ()):
                note(at, "holds half of a surrogate pair, which is no character")
                kept[at] = None
        return pa.array(kept, pa.list_(pa.string()))


def spoken(words: pa.Array) -> pa.Array:
    """Return each list of words as one text, null where it is null."""
    return compute.binary_join(words, " ")


def made_texts(chunk: Chunk, parts: Parts, bad: set[int], findings: Findings, place: str) -> pa.Array:
    """Return the text that each row's parts make; what makes none is noted, and null."""
    columns = {name: values for name, values in chunk.columns.items() if name in parts.names}
    made: list[str | None] = []
    for at, line in enumerate(chunk.lines):
        try:
            made.append(parts.make({name: values[at] for name, values in columns.items()}))
            made[-1].encode()  # type: ignore[union-attr]
        except UnicodeEncodeError:
            made[-1] = None
            findings.faults.add(place, line, "holds half of a surrogate pair, which is no character")
        except ValueError as error:
            made.append(None)
            findings.faults.add(place, line, str(error))
        if made[-1] is None:
            bad.add(at)
    return pa.array(made, pa.string())


def image_array(values: list[Any], note: Note, request: Request, findings: Findings) -> pa.Array:
    """Return images as the bytes of their pixels; what is no image that can be used is noted and null."""
    from finetune.data.pixels import Unfit, square

    def remark(said: str) -> None:
        findings.remarks[request.piece.place, said] += 1

    squares: list[bytes | None] = []
    for at, value in enumerate(values):
        try:
            squares.append(square(value, request.folder, request.squares, remark))
        except Unfit as error:
            note(at, str(error))
            squares.append(None)
    return pa.array(squares, pa.large_binary())  # 2 GB are soon reached


def checked(values: list[Any], kinds: tuple[type, ...], wanted: str, note: Note) -> list[Any]:
    """Return the values after noting those that are missing or of another kind."""
    for at, value in enumerate(values):
        if value is None:
            note(at, f"is null; it must hold {wanted}")
        elif not isinstance(value, kinds):
            kind = KINDS.get(type(value), f"a {type(value).__name__}")
            note(at, f"is {kind} ({shown(value, 30)}); it must hold {wanted}")
    return values


def string_array(values: list[str | None], note: Note) -> pa.Array:
    """Return Arrow strings; halves of surrogate pairs, which JSON can write and no text holds, are noted."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        for at, value in enumerate(values):
            try:
                (value or "").encode()
            except UnicodeEncodeError as error:
                note(at, f"holds half of a surrogate pair (\\u{ord(error.object[error.start]):04x}), no character")
                values[at] = None
        return pa.array(values, pa.string())


def empty_texts(texts: pa.Array, bad: set[int], note: Note, policy: str) -> set[int]:
    """Return the rows whose text is empty or white space alone, for `drop`; note them for `error`."""
    blank = compute.equal(compute.utf8_trim_whitespace(texts), "")
    found = [] if not compute.any(blank).as_py() else compute.indices_nonzero(blank).to_pylist()
    if policy == "drop":
        return set(found) - bad
    for at in found:
        note(at, "is empty; write a text, remove the row, or set data.empty_texts: drop")
    return set()


def label_array(values: list[Any], note: Note, may_miss: bool) -> pa.Array:
    """Return labels as Arrow text, integers, floats, booleans or lists; the kinds are settled over all files later."""
    if may_miss:  # CSV writes a null as nothing
        values = [None if isinstance(value, str) and not value.strip() else value for value in values]
    kinds = set(map(type, values)) - ({type(None)} if may_miss else set())
    if (len(kinds) > 1 and kinds != {int, float}) or not kinds <= {str, int, float, bool, list}:
        values = of_one_kind(values, note, may_miss)
        kinds = set(map(type, values)) - {type(None)}
    note_wrong(values, kinds, note)
    if kinds == {str}:
        return string_array(values, note)
    if kinds == {list}:
        return list_array(values, note)
    if kinds == {int, float}:
        values = [None if value is None else float(value) for value in values]
    return pa.array(values)


def note_wrong(values: list[Any], kinds: set[type], note: Note) -> None:
    """Note the labels that are of a kind that may be, but hold nothing to learn; they become None."""
    for kind, wrong, message in WRONG:
        for at, value in enumerate(values) if kind in kinds else ():
            if type(value) is kind and wrong(value):
                note(at, message.format(shown(value, 30)))
                values[at] = None


WRONG: list[tuple[type, Callable[[Any], bool], str]] = [
    (str, lambda value: not value.strip(), "is empty; every row needs a label"),
    (float, lambda value: not math.isfinite(value), "is {}; a label must be a finite number"),
    (int, lambda value: not -LARGEST <= value <= LARGEST, "is {}; a label must fit into 64 bits"),
    (
        list,
        lambda value: not (all(type(item) is str for item in value) or all(type(item) is int for item in value)),
        "is {}; a list of labels holds names, or whole numbers, and nothing else",
    ),
    (
        list,
        lambda value: any(type(item) is int and not -LARGEST <= item <= LARGEST for item in value),
        "is {}; each of its numbers must fit into 64 bits",
    ),
    (
        list,
        lambda value: any(type(item) is str and SURROGATES.search(item) for item in value),
        "is {}; one of its names holds half of a surrogate pair, which is no character",
    ),
]


def of_one_kind(values: list[Any], note: Note, may_miss: bool) -> list[Any]:
    """Return the labels with those noted and None that are missing, or not of the kind that most are."""
    counts: dict[str, int] = {}
    for value in values:
        kind = KINDS.get(type(value), "")
        counts[kind] = counts.get(kind, 0) + 1
    allowed = {kind: count for kind, count in counts.items() if kind not in ("", "missing")}
    most = max(allowed, key=lambda kind: allowed[kind]) if allowed else "text"
    kept: list[Any] = []
    for at, value in enumerate(values):
        kind = KINDS.get(type(value), f"a {type(value).__name__}")
        kept.append(value if kind == most else None)
        if kind == "missing" and not may_miss:
            note(at, "is null; every row needs a label")
        elif kind not in (most, "missing"):
            note(at, f"is {kind} ({shown(value, 30)}) where other rows have {most}; write all labels alike")
    return kept


def list_array(values: list[list[Any] | None], note: Note) -> pa.Array:
    """Return lists of labels as Arrow lists; lists of names among lists of numbers are noted, or the other way."""
    kinds = [type(value[0]) if value else None for value in values]
    first = next((kind for kind in kinds if kind is not None), str)
    for at, kind in enumerate(kinds):
        if kind not in (first, None):
            note(at, f"is {shown(values[at], 30)} where other rows list {'names' if first is str else 'numbers'}")
            values[at] = None
    return pa.array(values, pa.list_(pa.string() if first is str else pa.int64()))


def group_array(values: list[Any], note: Note) -> pa.Array:
    """Return the values that rows are grouped by, as text."""
    checked(values, (str, int, float, bool), "a group", note)
    return string_array([None if value is None else str(value) for value in values], note)
