"""Broken rows of words and tags through the whole command: one line, exit 2, no traceback, nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from test_broken_inputs import refused

ROWS = tiny.tagged(12, 1)


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(words: Any, tags: Any) -> dict[str, Any]:
    return {"tokens": words, "ner_tags": tags}


GOOD = jsonl(*ROWS)
PLACES = {"train": "train.conll"}
# (name, files, changes of the recipe's sections, what the line says)
CASES: list[tuple[str, dict[str, str], dict[str, Any], str]] = [
    ("unequal", {"train.jsonl": GOOD + jsonl(row(["a", "b"], ["O"]))}, {}, r"train\.jsonl:13: 2 words and 1 tags"),
    ("words-are-text", {"train.jsonl": GOOD + jsonl(row("a b", ["O", "O"]))}, {}, r"train\.jsonl:13.*list of words"),
    ("word-is-a-number", {"train.jsonl": GOOD + jsonl(row(["a", 5], ["O", "O"]))}, {}, r"train\.jsonl:13.*5 among"),
    ("word-is-null", {"train.jsonl": GOOD + jsonl(row(["a", None], ["O", "O"]))}, {}, r"train\.jsonl:13.*None among"),
    ("word-half-a-pair", {"train.jsonl": GOOD + jsonl(row(["\ud83d"], ["O"]))}, {}, r"train\.jsonl:13.*surrogate"),
    ("no-words", {"train.jsonl": GOOD + jsonl(row([], []))}, {}, r"train\.jsonl:13.*is empty"),
    ("blank-words", {"train.jsonl": GOOD + jsonl(row([" "], ["O"]))}, {}, r"train\.jsonl:13.*is empty"),
    ("tags-are-text", {"train.jsonl": GOOD + jsonl(row(["a"], "O"))}, {}, r"train\.jsonl:13"),
    ("null-tags", {"train.jsonl": GOOD + jsonl(row(["a"], None))}, {}, r"train\.jsonl:13"),
    ("mixed-tags", {"train.jsonl": GOOD + jsonl(row(["a", "b"], ["O", 1]))}, {}, r"train\.jsonl:13"),
    ("numbers-without-names", {"train.jsonl": jsonl(row(["a", "b"], [0, 1]), row(["c"], [2]))}, {},
     r"train\.jsonl:1: tags are numbers.*task\.labels"),
    ("number-without-its-name", {"train.jsonl": jsonl(row(["a", "b"], [0, 1]), row(["c"], [2]))},
     {"task": {"labels": ["O", "B-X"]}}, r"train\.jsonl:2: the tag 2 has no name"),
    ("both-kinds", {"train.jsonl": GOOD + jsonl(row(["a"], ["PLACE"]))}, {}, r'"PLACE" has no prefix'),
    ("not-the-scheme", {"train.jsonl": GOOD + jsonl(row(["a", "b"], ["O", "I-BLAME"]))}, {"task": {"scheme": "IOB2"}},
     r'train\.jsonl:13, word 2: "I-BLAME"'),
    ("another-scheme", {"train.jsonl": GOOD + jsonl(row(["a"], ["S-BLAME"]))}, {"task": {"scheme": "IOB2"}},
     "prefixes of IOBES, and task.scheme is IOB2"),
    ("bare-tag-of-a-scheme", {"train.jsonl": GOOD + jsonl(row(["a"], ["PLACE"]))}, {"task": {"scheme": "IOB2"}},
     r'train\.jsonl:13, word 1: the tag "PLACE"'),
    ("unknown-scheme", {}, {"task": {"scheme": "IOB3"}}, "IOB3"),
    ("nothing-but-o", {"train.jsonl": jsonl(row(["a"], ["O"]), row(["b"], ["O"]))}, {}, "nothing to learn"),
    ("unseen-in-train", {"validation.jsonl": jsonl(row(["q"], ["B-PRIASE"]))},
     {"data": {"validation": "validation.jsonl"}}, r"validation\.jsonl:1, word 1.*'B-PRIASE'.*Did you mean B-PRAISE"),
    ("validation-without-spans", {"validation.jsonl": jsonl(row(["q"], ["O"]))},
     {"data": {"validation": "validation.jsonl"}}, "no row has a span"),
    ("missing-column", {"train.jsonl": GOOD.replace("ner_tags", "ner_tag")}, {}, "Did you mean ner_tag"),
    ("label-that-is-not-there", {}, {"task": {"labels": ["O", "B-PLACE"]}}, "B-PLACE"),
    ("labels-of-another-scheme", {"train.jsonl": jsonl(row(["a", "b"], [0, 1]), row(["c"], [0]))},
     {"task": {"labels": ["O", "S-X", "B-X"]}}, "S-X is no label of IOB2"),
    ("csv", {"train.csv": "tokens,ner_tags\na,O\n"}, {"data": {"train": "train.csv"}}, "has no lists"),
    ("ragged", {"train.conll": "a O\nb\n"}, {"data": PLACES}, r"train\.conll:2: 1 column"),
    ("ragged-after-tabs", {"train.conll": "a\tO\nb c\tO\nd O\n"}, {"data": PLACES}, r"train\.conll:3: 1 column"),
    ("one-column", {"train.conll": "a\nb\n"}, {"data": PLACES}, r"train\.conll:1: has one column"),
    ("no-sentence", {"train.conll": "-DOCSTART- O\n"}, {"data": PLACES}, r"train\.conll: is empty"),
    ("two-text-columns", {"train.conll": "a O\nb B-X\n"}, {"data": {**PLACES, "columns": {"ner_tags": "4"}}},
     r'train\.conll:1: has no column "4"'),
    ("text-that-is-another", {"train.jsonl": jsonl(*({**each, "text": "what"} for each in ROWS))},
     {"task": {"text": "text"}}, r"train\.jsonl:1, word 1.*does not stand in the text"),
    ("too-long", {}, {"task": {"max_length": 4}, "data": {"on_long": "error"}}, r"train\.jsonl:1.*max_length"),
    ("no-room", {}, {"task": {"max_length": 2}}, "max_length"),
    ("weight-of-nothing", {}, {"task": {"class_weights": {"PRAISE": 2.0}}}, "'PRAISE' is not a label"),
    ("novelty", {}, {"evaluate": {"novelty": "vae"}}, "novelty is of a classifier"),
]  # fmt: skip


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a link to a tiny model and a good train file."""
    (tmp_path / "bert").symlink_to(home / "bert")
    (tmp_path / "train.jsonl").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "files", "changes", "line"), CASES, ids=[case[0] for case in CASES])
def test_broken_tags_are_one_line_exit_2_and_nothing_written(
    place, capsys, contract, name, files, changes, line
) -> None:
    for file, content in files.items():
        (place / file).write_text(content)
    sections: dict[str, Any] = {
        "task": {"kind": "token-classification", "max_length": 32},
        "data": {"train": "train.jsonl", "cache_dir": "cache"},
        "model": {"path": "bert"},
        "train": {"output_dir": "runs/x", "max_steps": 1, "bf16": False},
    }
    for section, options in changes.items():
        sections[section] = {**sections.get(section, {}), **options}
    (place / "recipe.yaml").write_text(yaml.safe_dump(sections))

    refused(capsys, contract, line)
    assert not (place / "runs").exists()
