"""Rows as conversations: the four layouts in which instructions and dialogues are kept, and what is wrong with a row.

A conversation travels as one text, flat JSON: its layout, then role and content of each turn.
"""

from __future__ import annotations

import json
from typing import Any

from finetune.errors import did_you_mean
from finetune.task import Parts

Turn = dict[str, str]  # role and content, as chat templates take it
COLUMN = "conversation"  # of the rows
NAMES = {  # layout: how it is said
    "messages": "messages (role, content)",
    "conversations": "ShareGPT (conversations of from, value)",
    "prompt": "prompt and completion",
    "instruction": "Alpaca (instruction, input, output)",
}
ROLES = {
    "system": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
}  # fmt: skip
READ = ("messages", "conversations", "prompt", "completion", "instruction", "input", "output", "history", "system")


def conversation(row: dict[str, Any]) -> str:
    """Return the text of a row's conversation; `row` holds what there is of the columns READ.

    Raises:
        ValueError: it is none; says why.
    """
    layout = next((name for name in NAMES if row.get(name) is not None), None)
    if layout is None:
        raise ValueError("has no conversation; give messages, conversations, prompt or instruction")
    turns = _turns(row, layout)
    _check_order(turns)
    flat = [part for turn in turns for part in (turn["role"], turn["content"])]
    return json.dumps([layout, *flat], ensure_ascii=False)


def turns_of(text: str) -> list[Turn]:
    """Return the turns of a conversation's text; any other text is a user's only turn."""
    parts = _parts(text)
    if parts is None:
        return [{"role": "user", "content": text}]
    return [{"role": role, "content": content} for role, content in zip(parts[1::2], parts[2::2], strict=True)]


def said_in(text: str) -> str:
    """Return what the turns of a conversation's text say, one below the other."""
    return "\n".join(turn["content"] for turn in turns_of(text))


PARTS = Parts(COLUMN, READ, conversation, said_in)


def layout_of(text: str) -> str:
    """Return in which layout a conversation stood in its file."""
    parts = _parts(text)
    return "prompt" if parts is None else parts[0]


def _parts(text: str) -> list[str] | None:
    try:
        parts = json.loads(text)
    except ValueError:
        return None
    if isinstance(parts, list) and len(parts) % 2 and all(isinstance(part, str) for part in parts):
        return parts if parts[0] in NAMES and set(parts[1::2]) <= set(ROLES.values()) else None
    return None


def _turns(row: dict[str, Any], layout: str) -> list[Turn]:
    if layout == "messages":
        return _list(row[layout], layout, ("role", "content"))
    if layout == "conversations":
        return _list(row[layout], layout, ("from", "value"))
    before = [] if row.get("system") in (None, "") else [_turn("system", row["system"], "system")]
    before += _history(row.get("history"))
    if layout == "instruction":
        more = _text(row.get("input") or "", "input")
        asked = _text(row[layout], layout)
        asked = f"{asked}\n\n{more}" if more.strip() else asked
        answer = [] if row.get("output") is None else [_turn("assistant", row["output"], "output")]
        return [*before, _turn("user", asked, layout), *answer]
    found = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        value = row.get(name)
        if isinstance(value, list):
            found += _list(value, name, ("role", "content"))
        elif value is not None:
            found.append(_turn(role, value, name))
    return [*before, *found]


def _list(value: Any, column: str, keys: tuple[str, str]) -> list[Turn]:
    """Return the turns of a list of objects, or of the JSON of one, as CSV holds it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f'column "{column}" is a text; it must hold a list of turns') from None
    if not isinstance(value, list):
        raise ValueError(f'column "{column}" is {_kind(value)}; it must hold a list of turns')
    if not value:
        raise ValueError(f'column "{column}" holds no turn')
    return [_object(each, f'column "{column}": turn {number}', keys) for number, each in enumerate(value, 1)]


def _object(value: Any, where: str, keys: tuple[str, str]) -> Turn:
    who, what = keys
    if not isinstance(value, dict):
        raise ValueError(f'{where} is {_kind(value)}; it must be an object with "{who}" and "{what}"')
    for key in keys:
        if value.get(key) is None:
            raise ValueError(f'{where} has no "{key}"; it has {", ".join(map(str, value))}.{did_you_mean(key, value)}')
    role = value[who]
    if not isinstance(role, str) or role.strip().lower() not in ROLES:
        near = did_you_mean(str(role), ROLES)
        raise ValueError(f'{where} is of "{role}"; known: {", ".join(ROLES)}.{near}')
    return _turn(ROLES[role.strip().lower()], value[what], where)


def _history(value: Any) -> list[Turn]:
    """Return earlier turns: texts in turn, the user's first, or pairs of question and answer."""
    if value in (None, ""):
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError('column "history" is a text; it must hold a list of earlier turns') from None
    if not isinstance(value, list):
        raise ValueError(f'column "history" is {_kind(value)}; it must hold a list of earlier turns')
    flat = [text for pair in value for text in pair] if all(isinstance(each, list) for each in value) else value
    return [
        _turn(("user", "assistant")[number % 2], text, f'column "history": turn {number + 1}')
        for number, text in enumerate(flat)
    ]


def _turn(role: str, content: Any, where: str) -> Turn:
    where = where if where.startswith("column") else f'column "{where}"'
    text = _text(content, where)
    if not text.strip():
        raise ValueError(f"{where} is empty; every turn says something")
    return {"role": role, "content": text}


def _text(content: Any, where: str) -> str:
    if not isinstance(content, str):
        where = where if where.startswith("column") else f'column "{where}"'
        raise ValueError(f"{where} holds {_kind(content)}; it must hold a text")
    return content


def _check_order(turns: list[Turn]) -> None:
    """Raise ValueError unless a system's turn comes first, if at all, and then user and assistant take turns."""
    roles = [turn["role"] for turn in turns]
    if "system" in roles[1:]:
        raise ValueError(f"turn {roles.index('system', 1) + 1} is the system's; it can only come first")
    start = int(roles[0] == "system")
    if len(roles) == start:
        raise ValueError("has a system's turn and no other")
    for number, role in enumerate(roles[start:]):
        wanted = ("user", "assistant")[number % 2]
        if role != wanted:
            after = "as the first" if number == 0 else f"after the {roles[start + number - 1]}'s"
            raise ValueError(f"turn {start + number + 1} is the {role}'s, {after}; user and assistant take turns")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
