"""Broken questions and answers through the whole command: one line, exit 2, no traceback, nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from test_broken_inputs import refused

ROWS = [row for row in tiny.questions(16, 1) if row["answers"]["text"]]
COUNT = len(ROWS)
CONTEXT = "the film felt warm"


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(answers: Any, context: Any = CONTEXT, question: Any = "how") -> dict[str, Any]:
    return {"question": question, "context": context, "answers": answers}


def one(text: Any, start: Any) -> dict[str, Any]:
    return {"text": [text], "answer_start": [start]}


GOOD = jsonl(*ROWS)
LAST = rf"train\.jsonl:{COUNT + 1}"
NESTED: dict[str, Any] = {"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": [
    {"id": "q1", "question": "how", "answers": [{"text": "warm", "answer_start": 14}]}]}]}]}  # fmt: skip


def nested(change: Any) -> dict[str, str]:
    made = json.loads(json.dumps(NESTED))
    change(made["data"][0]["paragraphs"][0])
    return {"train.json": json.dumps(made)}


SQUAD = {"data": {"train": "train.json"}}
# (name, files, changes of the recipe's sections, what the line says)
CASES: list[tuple[str, dict[str, str], dict[str, Any], str]] = [
    ("offset", {"train.jsonl": GOOD + jsonl(row(one("warm", 9)))}, {},
     LAST + r'.*has the answer "warm" at 9, and "felt" stands there; it stands at 14'),
    ("offset-behind", {"train.jsonl": GOOD + jsonl(row(one("warm", 90)))}, {}, LAST + ".*the text ends before"),
    ("offset-below-0", {"train.jsonl": GOOD + jsonl(row(one("warm", -4)))}, {}, LAST + ".*at -4"),
    ("answer-nowhere", {"train.jsonl": GOOD + jsonl(row(one("cold", 14)))}, {}, LAST + ".*it stands nowhere in it"),
    ("answer-empty", {"train.jsonl": GOOD + jsonl(row(one("", 0)))}, {}, LAST + ".*an empty answer"),
    ("answer-half-a-pair", {"train.jsonl": GOOD + jsonl(row(one("\ud83d", 5)))}, {},
     LAST + ".*half of a surrogate pair"),
    ("context-half-a-pair", {"train.jsonl": GOOD + jsonl(row(one("\ud83d", 4), context="a b \ud83d c"))}, {},
     LAST + ".*half of a surrogate pair"),
    ("answers-are-text", {"train.jsonl": GOOD + jsonl(row("warm"))}, {}, LAST + ".*must hold answers as"),
    ("no-offsets", {"train.jsonl": GOOD + jsonl(row({"text": ["warm"]}))}, {}, LAST + ".*must hold answers as"),
    ("unequal", {"train.jsonl": GOOD + jsonl(row({"text": ["warm"], "answer_start": [14, 3]}))}, {}, LAST),
    ("offset-is-text", {"train.jsonl": GOOD + jsonl(row(one("warm", "14")))}, {}, LAST),
    ("null-answers", {"train.jsonl": GOOD + jsonl(row(None))}, {}, LAST),
    ("empty-context", {"train.jsonl": GOOD + jsonl(row(one("x", 0), context=" "))}, {}, LAST + ".*is empty"),
    ("question-is-a-list", {"train.jsonl": GOOD + jsonl(row(one("warm", 14), question=["how"]))}, {}, LAST),
    ("missing-column", {"train.jsonl": GOOD.replace('"answers"', '"answer"')}, {}, "Did you mean answer"),
    ("nothing-to-learn", {"train.jsonl": jsonl(row({"text": [], "answer_start": []}))}, {}, "nothing to learn"),
    ("unanswered-in-test", {"test.jsonl": jsonl(row({"text": [], "answer_start": []}))},
     {"data": {"test": "test.jsonl"}}, r"test\.jsonl:1: the question has no answer.*can_be_none to true"),
    ("unanswered-and-denied", {"train.jsonl": GOOD + jsonl(row({"text": [], "answer_start": []}))},
     {"task": {"can_be_none": False}}, LAST + ".*can_be_none is false"),
    ("threshold-for-nothing", {}, {"task": {"threshold": 0.5}}, "task.threshold"),
    ("stride", {}, {"task": {"stride": 32}}, "task.stride: 32"),
    ("answer-length", {}, {"task": {"max_answer_length": 0}}, "task.max_answer_length: 0"),
    ("question-leaves-no-room", {"train.jsonl": GOOD + jsonl(row(one("warm", 14), question="how " * 40))}, {},
     LAST + ".*no room is left"),
    ("too-long", {}, {"task": {"max_length": 8, "stride": 2}, "data": {"on_long": "error"}},
     r"train\.jsonl:\d+.*max_length"),
    ("csv", {"train.csv": "question,context,answers\na,b,c\n"}, {"data": {"train": "train.csv"}}, "has cells"),
    ("squad-offset", nested(lambda p: p["qas"][0]["answers"][0].update(answer_start=3)), SQUAD,
     r'train\.json#q1.*has the answer "warm" at 3, and " fil" stands there; it stands at 14'),
    ("squad-without-question", nested(lambda p: p["qas"][0].pop("question")), SQUAD,
     r"train\.json: data\[0\]\.paragraphs\[0\]\.qas\[0\]: there is no question"),
    ("squad-without-context", nested(lambda p: p.pop("context")), SQUAD, r"paragraphs\[0\]: there is no context"),
    ("squad-qas-are-text", nested(lambda p: p.update(qas="x")), SQUAD, 'qas is "x"; it must be a list'),
    ("squad-empty", nested(lambda p: p.update(qas=[])), SQUAD, "holds no questions"),
    ("squad-broken", {"train.json": json.dumps(NESTED)[:-4]}, SQUAD, r"train\.json:1: is not JSON"),
    ("object-of-nothing", {"train.json": '{\n"rows": []\n}'}, SQUAD, 'without a list "data"'),
]  # fmt: skip


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a link to a tiny model and a good train file."""
    (tmp_path / "bert").symlink_to(home / "bert")
    (tmp_path / "train.jsonl").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "files", "changes", "line"), CASES, ids=[case[0] for case in CASES])
def test_broken_answers_are_one_line_exit_2_and_nothing_written(
    place, capsys, contract, name, files, changes, line
) -> None:
    for file, content in files.items():
        (place / file).write_text(content)
    sections: dict[str, Any] = {
        "task": {"kind": "question-answering", "max_length": 32, "stride": 8},
        "data": {"train": "train.jsonl", "cache_dir": "cache"},
        "model": {"path": "bert"},
        "train": {"output_dir": "runs/x", "max_steps": 1, "bf16": False},
    }
    for section, options in changes.items():
        sections[section] = {**sections.get(section, {}), **options}
    (place / "recipe.yaml").write_text(yaml.safe_dump(sections))

    refused(capsys, contract, line)
    assert not (place / "runs").exists()
