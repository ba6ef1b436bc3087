"""JSON files: one object a line, or an array of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from finetune.data.chunks import Chunk, Findings, Request, present_columns
from finetune.data.decoding import open_text
from finetune.data.faults import listed, shown
from finetune.data.squad import nested, read_squad

BLANK = re.compile(r"[ \t\r\n]*")  # white space as JSON has it


def read_json(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give the rows of a .json, .jsonl or .ndjson file; what it holds is seen from its first character."""
    path, faults = request.piece.path, findings.faults
    with open_text(path, request.encoding, "\n", faults) as lines:
        skipped, first = 0, ""
        for first in lines:
            if first.strip():
                break
            skipped += 1
        if not first.strip():
            faults.add(path, None, "is empty")
        elif request.passage is not None and nested(first):
            yield from read_squad(first + "".join(lines), skipped, request, findings)
        elif first.lstrip().startswith("["):
            text = "\n" * skipped + first + "".join(lines)
            yield from collect(array_objects(text, request, findings), request, findings)
        elif first.strip() == "{":
            faults.add(path, skipped + 1, spread_object(first + "".join(lines)))
        else:
            yield from collect(line_objects(first, lines, skipped + 1, request, findings), request, findings)


def spread_object(text: str) -> str:
    """Return the message for a file whose first object spans lines."""
    fix = "write an array of objects, or one object a line"
    try:
        return f"is one object with the keys {listed(json.loads(text))}; {fix}"
    except (ValueError, RecursionError):
        return f"an object spans lines; {fix}"


def line_objects(
    first: str, lines: Iterator[str], start: int, request: Request, findings: Findings
) -> Iterator[tuple[int, Any]]:
    """Give (line, value) of each line that is JSON."""
    path, blank, number, line = request.piece.path, 0, start, first
    while True:
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            if line.strip():
                findings.faults.add(path, number, not_json(error, line))
            blank += not line.strip()
        except RecursionError:
            findings.faults.add(path, number, f"is nested too deeply: {shown(line)}")
        except ValueError as error:  # an integer of more than 4,300 digits
            findings.faults.add(path, number, f"is not JSON that can be read ({error}): {shown(line)}")
        number += 1
        line = next(lines, "")
        if not line:
            break
    if blank:
        findings.notes.append(f"{path}: {blank} blank lines are left out")


def array_objects(text: str, request: Request, findings: Findings) -> Iterator[tuple[int, Any]]:
    """Give (line, value) of each element of an array."""
    decoder, path, faults = json.JSONDecoder(), request.piece.path, findings.faults
    line, counted = 1, 0
    at = BLANK.match(text, text.index("[") + 1).end()  # type: ignore[union-attr]
    while not text.startswith("]", at):
        line += text.count("\n", counted, at)
        counted = at
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            faults.add(path, error.lineno, not_json(error, text[error.pos - error.colno + 1 :].split("\n", 1)[0]))
            return
        except (RecursionError, ValueError) as error:
            faults.add(path, line, f"is not JSON that can be read ({error})")
            return
        yield line, value
        at = BLANK.match(text, end).end()  # type: ignore[union-attr]
        if text.startswith(",", at):
            at = BLANK.match(text, at + 1).end()  # type: ignore[union-attr]
        elif not text.startswith("]", at):
            line += text.count("\n", counted, at)
            near = text[at : at + 40].strip()
            what = f"a comma or ] should stand before {shown(near)}" if near else "the file ends and the array is open"
            faults.add(path, line, what)
            return
    if text[at + 1 :].strip():
        line += text.count("\n", counted, at)
        faults.add(path, line, f"text follows the array: {shown(text[at + 1 :].strip())}")


def collect(objects: Iterator[tuple[int, Any]], request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give chunks of the asked columns; values that are no objects or miss a column are noted and left out."""
    path, faults = request.piece.path, findings.faults
    needed = {ours: theirs for ours, theirs in request.columns.items() if ours not in request.optional}
    optional = {ours: request.columns[ours] for ours in request.columns if ours in request.optional}
    names = list(needed.values())
    chunk, any_rows = Chunk(columns={ours: [] for ours in request.columns}), False
    for line, value in objects:
        any_rows = True
        try:
            cells = [value[name] for name in names]
        except (KeyError, TypeError, IndexError):
            if isinstance(value, dict):
                present_columns(request, value, line, faults)
            else:
                faults.add(path, line, f"is no object but {shown(json.dumps(value, ensure_ascii=False))}")
            continue
        if request.parts is not None and isinstance(value, dict) and not value.keys() & set(optional.values()):
            present_columns(request, value, line, faults)
            continue
        if request.parts is not None and not isinstance(value, dict):
            faults.add(path, line, f"is no object but {shown(json.dumps(value, ensure_ascii=False))}")
            continue
        chunk.lines.append(line)
        for ours, cell in zip(needed, cells, strict=True):
            chunk.columns[ours].append(cell)
        for ours, theirs in optional.items():
            chunk.columns[ours].append(value.get(theirs))
        if len(chunk.lines) == request.rows:
            yield chunk
            chunk = Chunk(columns={ours: [] for ours in request.columns})
    if not any_rows and not len(faults):
        faults.add(path, 1, "holds no rows")
    yield chunk


def not_json(error: json.JSONDecodeError, line: str) -> str:
    """Return the message for a line that is no JSON, with the text around the mistake."""
    near = line[max(0, error.colno - 20) : error.colno + 20].strip() or line.strip()
    hint = " (JSON wants double quotation marks)" if "'" in near and "double quotes" in error.msg else ""
    return f"is not JSON: {error.msg}{hint} at position {error.colno}, near {shown(near)}"
