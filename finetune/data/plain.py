"""Plain text files: a row is a line, a paragraph or the whole document."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.data.chunks import ROWS, Chunk, Findings, Request
from finetune.data.decoding import open_text


def read_text(request: Request, findings: Findings) -> Iterator[Chunk]:
    r"""Give rows of one column, the task's text; line ends are \n whatever they were. Blank lines are no rows."""
    path, faults = request.piece.path, findings.faults
    ours = request.texts[0]
    others = [name for name in request.columns if name != ours and name not in request.optional]
    if others:
        faults.add(path, None, f'plain text has no column "{others[0]}"; use CSV or JSONL, with a column for each')
        return
    chunk, empty = Chunk(columns={ours: []}), True
    with open_text(path, request.encoding, "", faults) as lines:
        for line, text in blocks(lines, request.sample_by):
            empty = False
            chunk.lines.append(line)
            chunk.columns[ours].append(text)
            if len(chunk.lines) == ROWS:
                yield chunk
                chunk = Chunk(columns={ours: []})
        if empty:
            faults.add(path, None, "is empty")
    yield chunk


def blocks(lines: Iterator[str], sample_by: str) -> Iterator[tuple[int, str]]:
    """Give (first line, text) of each line that is not blank, of each paragraph between blank lines, or of all."""
    if sample_by == "document":
        text = "".join(line.replace("\r\n", "\n").replace("\r", "\n") for line in lines)
        if text.strip():
            yield 1, text
        return
    start, block = 0, []
    for number, line in enumerate(lines, 1):
        stripped = line.rstrip("\r\n")
        if stripped.strip():
            start = start or number
            block.append(stripped)
        if block and (sample_by == "line" or not stripped.strip()):
            yield start, "\n".join(block)
            start, block = 0, []
    if block:
        yield start, "\n".join(block)
