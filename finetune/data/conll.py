"""Files with a word a line, its tag beside it, and a blank line after every sentence: CoNLL-2003's form and its kin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from finetune.data.chunks import Chunk, Findings, Request, present_columns
from finetune.data.decoding import open_text
from finetune.data.faults import shown

DOCUMENT = "-DOCSTART-"
GAP = re.compile(r"[ \t]+")
WHITE = " \t\r\n"  # not all that Python takes for white space: a no-break space is a word in some corpora
Sentence = list[list[str]]  # the cells of each word


def read_conll(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give a row a sentence: lists of what stands in the columns of words and of tags.

    Words stand in the first column and tags in the last; in CoNLL-U, in FORM and UPOS. `data.columns` names others by
    their number from 0. A row's line is that of its first word.
    """
    piece, places = request.piece, None
    chunk = Chunk(columns={})
    with open_text(piece.path, request.encoding, "", findings.faults) as lines:
        for line, cells in sentences(lines, request, findings):
            if places is None:
                places = columns_of(request, line, cells[0], findings)
                if places is None:
                    return
            chunk.lines.append(line)
            for ours, place in places.items():
                chunk.columns.setdefault(ours, []).append([word[place] for word in cells])
            if len(chunk.lines) == request.rows:
                yield chunk
                chunk = Chunk(columns={})
    if places is None and not len(findings.faults):
        findings.faults.add(piece.path, None, "is empty" if not chunk.lines else "holds no sentence")
    yield chunk


def columns_of(request: Request, line: int, cells: list[str], findings: Findings) -> dict[str, int] | None:
    """Return the place of each asked column, or None after noting that one is missing."""
    universal = is_universal(request)
    usual = {request.words: 1 if universal else 0, request.label: 3 if universal else len(cells) - 1}
    known = [str(place) for place in range(len(cells))]
    if len(cells) == 1 and request.label is not None and request.label not in request.optional:
        findings.faults.add(request.piece.path, line, f"has one column ({shown(cells[0], 30)}) and no tags beside it")
        return None
    named = {ours: theirs for ours, theirs in request.columns.items() if ours not in usual or theirs != ours}
    if named:
        asked = Request(request.piece, named, request.texts, request.label, request.optional)
        if present_columns(asked, known, line, findings.faults) is None:
            return None
    return {ours: int(named[ours]) if ours in named else usual[ours] for ours in request.columns}


def is_universal(request: Request) -> bool:
    """Say whether a file has the ten columns of Universal Dependencies, with comments and words of several tokens."""
    return request.piece.path.lower().removesuffix(".gz").endswith(".conllu")


def sentences(lines: Iterator[str], request: Request, findings: Findings) -> Iterator[tuple[int, Sentence]]:
    """Give (line of its first word, the cells of each word) of each sentence; words of another width are noted."""
    path, universal = request.piece.path, is_universal(request)
    start, documents, tabs = 0, 0, False
    held: Sentence = []
    first: list[Any] = []  # line, columns and text of the first word
    for number, text in enumerate(lines, 1):
        line = text.strip(WHITE)
        document = line == DOCUMENT or (line.startswith(DOCUMENT) and line[len(DOCUMENT)] in WHITE)
        documents += document
        if not line or document:
            if held:
                yield start, held
            held = []
            continue
        if universal and line.startswith("#"):
            continue
        tabs = tabs if first else "\t" in line
        cells = [cell.strip(" ") for cell in text.rstrip("\r\n").split("\t")] if tabs else GAP.split(line)
        if universal and not cells[0].isdecimal():  # "3-4", a surface form; "8.1", a word that is not there
            continue
        first = first or [number, len(cells), line]
        if len(cells) != first[1]:
            findings.faults.add(path, number, ragged(cells, line, first))
        elif not all(cells):
            findings.faults.add(path, number, f"has an empty cell: {shown(line)}; every word needs one in each column")
        else:
            start = start if held else number
            held.append(cells)
    if held:
        yield start, held
    if documents:
        findings.notes.append(f"{path}: {documents} lines {DOCUMENT} are left out")


def ragged(cells: list[str], line: str, first: list[Any]) -> str:
    """Return the message for a line whose columns are not as many as those of the first word."""
    given = "1 column" if len(cells) == 1 else f"{len(cells)} columns"
    return f"{given} ({shown(line, 40)}) where line {first[0]} has {first[1]} ({shown(first[2], 40)})"
