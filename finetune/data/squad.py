"""SQuAD's own files: articles of paragraphs, each with its questions, in one object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from finetune.data.chunks import Chunk, Findings, Request, present_columns
from finetune.data.faults import shown

FIELDS = ("id", "title", "context", "question", "answers")


def nested(first: str) -> bool:
    """Say whether the first line of a JSON file begins one object of articles, not an object a line."""
    line = first.strip()
    return line == "{" or (line.startswith("{") and '"paragraphs"' in line and '"data"' in line)


def read_squad(text: str, skipped: int, request: Request, findings: Findings) -> Iterator[Chunk]:
    """Give a row a question: its id, its article's title, the paragraph, the question and the answers.

    Rows are called FILE#ID, for such files often have one line. `is_impossible` and `plausible_answers` are not read: a
    question has the answers that it lists.
    """
    path, faults = request.piece.path, findings.faults
    try:
        whole = json.loads(text)
    except ValueError as error:
        line = skipped + getattr(error, "lineno", 1)
        faults.add(path, line, f"is not JSON: {getattr(error, 'msg', error)} at position {getattr(error, 'colno', 1)}")
        return
    except RecursionError:
        faults.add(path, None, "is nested too deeply")
        return
    if not isinstance(whole.get("data"), list):
        faults.add(path, skipped + 1, 'is one object without a list "data" of articles; write one object a line')
        return
    if present_columns(request, FIELDS, None, faults) is None:
        return
    chunk = Chunk(columns={ours: [] for ours in request.columns}, files=[])
    any_rows = False
    answered = request.label in request.columns
    for place, row in questions(whole["data"], answered, path, findings):
        any_rows = True
        assert chunk.files is not None
        chunk.lines.append(len(chunk.lines) + 1)
        chunk.files.append(f"{path}#{place}")
        for ours, theirs in request.columns.items():
            chunk.columns[ours].append(row[theirs])
        if len(chunk.lines) == request.rows:
            yield chunk
            chunk = Chunk(columns={ours: [] for ours in request.columns}, files=[])
    if not any_rows and not len(faults):
        faults.add(path, None, "holds no questions")
    yield chunk


def questions(
    articles: list[Any], answered: bool, path: str, findings: Findings
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give (its id, or its place, the row) of each question; what has another shape is noted."""
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(held(article, "paragraphs", list, f"data[{a}]", path, findings)):
            where = f"data[{a}].paragraphs[{p}]"
            context = held(paragraph, "context", str, where, path, findings)
            for q, each in enumerate(held(paragraph, "qas", list, where, path, findings)):
                here = f"{where}.qas[{q}]"
                known = len(findings.faults)
                question = held(each, "question", str, here, path, findings)
                needed = answered and isinstance(each, dict)  # else its question is noted already, or nobody asks
                answers = held(each, "answers", list, here, path, findings) if needed else []
                if len(findings.faults) == known:
                    row = {"id": str(each.get("id", here)), "title": article.get("title") or str(a)}
                    yield row["id"], {**row, "context": context, "question": question, "answers": answers}


def held(value: Any, name: str, kind: type, where: str, path: str, findings: Findings) -> Any:
    """Return a field, or an empty value after noting that it is missing or of another kind."""
    if isinstance(value, dict) and isinstance(value.get(name), kind):
        return value[name]
    wanted = "a list" if kind is list else "a text"
    there = isinstance(value, dict) and name in value
    found = f"{name} is {shown(value[name], 30)}" if there else f"there is no {name}"
    findings.faults.add(path, None, f"{where}: {found}; it must be {wanted}")
    return kind()
