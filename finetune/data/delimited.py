"""CSV and TSV files, record by record, so that every mistake has the line where its record begins."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterator

from finetune.data.chunks import Chunk, Findings, Request, present_columns
from finetune.data.decoding import open_text
from finetune.data.faults import listed, shown
from finetune.data.records import Records

DELIMITERS = {"csv": ",", "tsv": "\t"}


def read_delimited(request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give the rows of a CSV or TSV file with a header; cells are text. Quoted cells may hold line ends."""
    piece, faults = request.piece, findings.faults
    csv.field_size_limit(sys.maxsize)  # the module's own limit of 131,072 characters refuses long documents
    before = len(faults)
    quoted = piece.format == "csv" or has_quotes(request, findings)
    if len(faults) > before:  # it cannot be decoded
        return
    with open_text(piece.path, request.encoding, "", faults) as lines:
        skipped, first = next(((at, line) for at, line in enumerate(lines) if line.strip()), (0, None))
        if first is None:
            faults.add(piece.path, None, "is empty")
            return
        delimiter = find_delimiter(first, request, findings)
        records = Records(itertools.chain([first], lines), delimiter, quoted)
        yield from read_records(records, request, findings, skipped)


def read_records(reader: Records, request: Request, findings: Findings, skipped: int) -> Iterator[Chunk]:
    """Give the asked columns of the records below the header; `skipped` lines of the file came before it."""
    header = read_header(reader, request, findings, skipped + 1)
    if header is None:
        return
    wanted = {ours: header.index(theirs) for ours, theirs in request.columns.items() if theirs in header}
    records, any_rows = whole_records(reader, header, request, findings, skipped), False
    while rows := list(itertools.islice(records, request.rows)):
        any_rows = True
        yield Chunk([line for line, _ in rows], {ours: [cells[at] for _, cells in rows] for ours, at in wanted.items()})
    if not any_rows and not len(findings.faults):
        findings.faults.add(request.piece.path, skipped + 1, "has a header and no rows")


def whole_records(
    reader: Records, header: list[str], request: Request, findings: Findings, skipped: int
) -> Iterator[tuple[int, list[str]]]:
    """Give (line where it begins, cells) of each record; those of another width are noted and left out."""
    path, width, blank = request.piece.path, len(header), 0
    while True:
        line = skipped + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            findings.faults.add(path, line, malformed(str(error)))
            continue
        if len(cells) == width:
            yield line, cells
        elif cells:
            findings.faults.add(path, line, ragged(cells, header))
        else:
            blank += 1
    if blank:
        findings.notes.append(f"{path}: {blank} blank lines are left out")


def read_header(reader: Records, request: Request, findings: Findings, line: int) -> list[str] | None:
    """Return the names of the columns, or None after noting why they cannot be used; `line` is where they stand."""
    path, faults = request.piece.path, findings.faults
    try:
        header = next(reader)
    except csv.Error as error:
        faults.add(path, line, f"the header is malformed: {malformed(str(error))}")
        return None
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        faults.add(path, line, f"the header names {listed(sorted(twice))} more than once; rename or remove one")
        return None
    return header if present_columns(request, header, line, faults) is not None else None


def find_delimiter(first: str, request: Request, findings: Findings) -> str:
    """Return the delimiter of the format, or another one if the wanted columns stand in the header only with that."""
    usual = DELIMITERS[request.piece.format]
    needed = [theirs for ours, theirs in request.columns.items() if ours not in request.optional]
    for delimiter in (usual, ",", ";", "\t", "|"):
        try:
            header = next(csv.reader([first], delimiter=delimiter))
        except (csv.Error, StopIteration):
            continue
        if all(name in header for name in needed):
            if delimiter != usual and len(header) > 1:
                name = "tab" if delimiter == "\t" else delimiter
                findings.notes.append(f'{request.piece.path}: columns are separated by "{name}"')
            return delimiter if len(header) > 1 else usual
    return usual


def has_quotes(request: Request, findings: Findings) -> bool:
    """Say whether a TSV file quotes its cells as CSV does; many do not, and begin texts with quotation marks.

    Cells are plain when every line has the tabs of the first and some cell has quotes that CSV would not allow.
    """
    tabs, odd = -1, False
    with open_text(request.piece.path, request.encoding, "\n", findings.faults) as lines:
        for line in filter(str.strip, lines):
            tabs = line.count("\t") if tabs < 0 else tabs
            if line.count("\t") != tabs:
                return True
            if '"' in line and not odd:
                odd = any(not well_quoted(cell) for cell in line.rstrip("\r\n").split("\t") if cell.startswith('"'))
    if odd:
        findings.notes.append(f"{request.piece.path}: quotation marks are read as part of the texts")
    return not odd


def well_quoted(cell: str) -> bool:
    """Say whether a cell that begins with a quotation mark is a whole quoted cell."""
    return len(cell) > 1 and cell.endswith('"') and '"' not in cell[1:-1].replace('""', "")


def malformed(error: str) -> str:
    """Return what the csv module's error means for the file's author."""
    if "unexpected end of data" in error:
        return 'a quotation mark opens here and never closes; close it, or write "" for one inside a quoted text'
    if "expected after" in error:
        return f'text follows a closing quotation mark ({error}); write "" for a quotation mark inside a quoted text'
    return f"is malformed: {error}"


def ragged(cells: list[str], header: list[str]) -> str:
    """Return the message for a record whose cells are not as many as the header's."""
    fix = "put texts that hold the separator in quotation marks" if len(cells) > len(header) else "a cell is missing"
    given = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
    return f"{given} where the header has {len(header)} ({listed(header, 4)}): {shown(','.join(cells))}; {fix}"
