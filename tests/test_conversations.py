"""The layouts of conversations, and what is wrong with a row: one line, with file and line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.cli import main
from finetune.tasks.conversations import conversation, layout_of, turns_of

ASKED = {"role": "user", "content": "Two and two?"}
TOLD = {"role": "assistant", "content": "Four."}
RULES = {"role": "system", "content": "Be brief."}
GOOD = {"messages": [ASKED, TOLD]}


@pytest.mark.parametrize(
    ("row", "layout", "turns"),
    [
        ({"messages": [RULES, ASKED, TOLD]}, "messages", [RULES, ASKED, TOLD]),
        ({"messages": json.dumps([ASKED, TOLD])}, "messages", [ASKED, TOLD]),
        (
            {"conversations": [{"from": "human", "value": "Two and two?"}, {"from": "GPT", "value": "Four."}]},
            "conversations",
            [ASKED, TOLD],
        ),
        ({"prompt": "Two and two?", "completion": "Four."}, "prompt", [ASKED, TOLD]),
        ({"prompt": [RULES, ASKED], "completion": [TOLD]}, "prompt", [RULES, ASKED, TOLD]),
        ({"prompt": "Two and two?", "completion": "Four.", "system": "Be brief."}, "prompt", [RULES, ASKED, TOLD]),
        (
            {"prompt": "Two and two?", "completion": "Four.", "history": ["Hi", "Hello"]},
            "prompt",
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, ASKED, TOLD],
        ),
        (
            {"instruction": "Two and two?", "output": "Four.", "history": [["Hi", "Hello"]]},
            "instruction",
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, ASKED, TOLD],
        ),
        ({"instruction": "Two and two?", "input": "", "output": "Four."}, "instruction", [ASKED, TOLD]),
        (
            {"instruction": "Add.", "input": "2, 2", "output": "Four."},
            "instruction",
            [{"role": "user", "content": "Add.\n\n2, 2"}, TOLD],
        ),
        ({"prompt": "Two and two?"}, "prompt", [ASKED]),
    ],
)
def test_every_layout_gives_its_turns(row, layout, turns) -> None:
    text = conversation(row)

    assert layout_of(text) == layout
    assert turns_of(text) == turns


@pytest.mark.parametrize("text", ["Hello?", "[1, 2]", '["a", "b"]', '{"a": 1}', '["messages", "captain", "Aye"]'])
def test_any_other_text_is_a_users_turn(text) -> None:
    assert turns_of(text) == [{"role": "user", "content": text}]


CASES: list[tuple[str, Any, str]] = [
    ("no-list", {"messages": 5}, r"bad\.jsonl:2: column \"messages\" is a number; it must hold a list of turns"),
    ("a-text", {"messages": "user: hi"}, r"jsonl:2: .*is a text; it must hold a list of turns"),
    ("no-turn", {"messages": []}, r"jsonl:2: column \"messages\" holds no turn"),
    ("turn-is-text", {"messages": ["hi", "ho"]}, r"turn 1 is a text; it must be an object with \"role\" and"),
    ("no-role", {"messages": [{"rol": "user", "content": "a"}, TOLD]}, r'turn 1 has no "role".*Did you mean rol\?'),
    ("no-content", {"messages": [{"role": "user"}, TOLD]}, r'turn 1 has no "content"'),
    ("number", {"messages": [{"role": "user", "content": 4}, TOLD]}, r"turn 1 holds a number; it must hold a text"),
    ("parts", {"messages": [{"role": "user", "content": [{"type": "image"}]}, TOLD]}, r"turn 1 holds a list"),
    ("role", {"messages": [ASKED, {"role": "asistant", "content": "a"}]}, r'of "asistant".*Did you mean assistant\?'),
    ("tool", {"messages": [ASKED, {"role": "tool", "content": "a"}]}, r'turn 2 is of "tool"; known: system, user'),
    ("empty-turn", {"messages": [ASKED, {"role": "assistant", "content": "  "}]}, r"turn 2 is empty; every turn says"),
    ("late-system", {"messages": [ASKED, RULES, TOLD]}, r"turn 2 is the system's; it can only come first"),
    ("two-systems", {"messages": [RULES, RULES, ASKED, TOLD]}, r"turn 2 is the system's"),
    ("system-alone", {"messages": [RULES]}, r"has a system's turn and no other"),
    ("assistant-first", {"messages": [TOLD, ASKED]}, r"turn 1 is the assistant's, as the first; user and"),
    ("two-users", {"messages": [ASKED, ASKED, TOLD]}, r"turn 2 is the user's, after the user's"),
    ("no-answer", {"messages": [ASKED]}, r"jsonl:2: ends without an assistant's turn"),
    ("sharegpt-keys", {"conversations": [{"form": "human", "value": "a"}]}, r'has no "from".*Did you mean form\?'),
    ("alpaca-number", {"instruction": "a", "output": 3}, r'column "output" holds a number'),
    ("alpaca-empty", {"instruction": " ", "output": "a"}, r'column "instruction" is empty'),
    ("no-completion", {"prompt": "a"}, r"ends without an assistant's turn"),
    ("history", {"prompt": "a", "completion": "b", "history": "x"}, r'"history" is a text'),
    ("odd-history", {"prompt": "a", "completion": "b", "history": ["x"]}, r"turn 2 is the user's, after the user's"),
    ("nothing-known", {"question": "a", "reply": "b"}, r'has the columns "question", "reply", and none of "messages"'),
    ("near", {"mesages": [ASKED, TOLD]}, r"none of .*Did you mean messages\?"),
    ("null", {"messages": None, "id": 3}, r"has no conversation; give messages"),
    ("no-object", [ASKED, TOLD], r"jsonl:2: is no object"),
    ("surrogate", {"messages": [ASKED, {"role": "assistant", "content": "\ud83d"}]}, r"half of a surrogate pair"),
    ("special", {"messages": [ASKED, {"role": "assistant", "content": "a<|endoftext|>b"}]}, r"holds <\|endoftext\|>"),
]  # fmt: skip

OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("no-template", {"task": {"template": None}}, r"task\.template is missing: this tokenizer has no chat template"),
    ("other-template", {"task": {"template": "llama"}}, r'task\.template is "llama"; known: plain, alpaca, chatml'),
    ("chatml", {"task": {"template": "chatml"}}, r"chatml is made of <\|im_start\|>, which is no token here"),
    ("window", {"data": {"on_long": "window"}}, r"data\.on_long: window would cut conversations apart"),
    ("too-long", {"task": {"block_size": 30}, "data": {"on_long": "error"}}, r"good\.jsonl:1: \d+ tokens, and task"),
    ("turns-too-long", {"task": {"block_size": 8}}, r"data\.on_long: all 4 conversations are longer than task\.block"),
    ("no-room", {"task": {"block_size": 150}}, r"task\.block_size 150 and task\.max_new_tokens 64 are more than"),
    ("too-few", {"task": {"max_new_tokens": 1}}, r"task\.max_new_tokens: 1 is too few"),
    ("layout", {"task": {"layout": "instruction"}}, r"task\.layout: instruction, and training rows are of messages"),
    ("train-on", {"task": {"train_on": "asistant"}}, r"Did you mean assistant\?"),
    ("plain-text", {"data": {"train": "text.txt"}}, r"text\.txt: holds no conversations; name a JSONL"),
    ("column", {"data": {"columns": {"promt": "q"}}}, r"data\.columns\.promt.*Did you mean prompt\?"),
    ("head", {"adapter": {"peft_type": "head"}}, r"task\.kind chat has none"),
]  # fmt: skip


def said(place: Path, capsys: Any, changes: dict[str, Any]) -> str:
    sections: dict[str, Any] = {
        "task": {"kind": "chat", "template": "plain", "block_size": 90},
        "data": {"train": "good.jsonl", "duplicates": "off"},
        "model": {"path": str(place / "gpt2")},
        "train": {"output_dir": "runs/x", "max_steps": 1, "bf16": False},
    }
    for name, options in changes.items():
        sections[name] = {key: each for key, each in {**sections.get(name, {}), **options}.items() if each is not None}
    Path("recipe.yaml").write_text(yaml.safe_dump(sections))
    code = main(["train", "recipe.yaml"])
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("finetune: ")]
    assert (code, len(lines)) == (2, 1), error
    assert "Traceback" not in error
    assert not Path("runs").exists()
    return lines[0]


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "gpt2").symlink_to(home / "gpt2-long")
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(GOOD) + "\n" for _ in range(4)))
    (tmp_path / "text.txt").write_text("User: hi")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "row", "line"), CASES, ids=[case[0] for case in CASES])
def test_a_broken_conversation_is_one_line_with_its_place(place, capsys, name, row, line) -> None:
    Path("bad.jsonl").write_text(json.dumps(GOOD) + "\n" + json.dumps(row) + "\n")

    error = said(place, capsys, {"data": {"train": "bad.jsonl"}})

    assert re.search(line, error), error
    assert "bad.jsonl:2" in error


@pytest.mark.parametrize(("name", "changes", "line"), OPTIONS, ids=[case[0] for case in OPTIONS])
def test_an_option_that_cannot_be_is_one_line(place, capsys, name, changes, line) -> None:
    assert re.search(line, error := said(place, capsys, changes)), error
