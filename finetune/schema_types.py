"""Turn dataclasses and type hints into JSON schema, with the comment beside each field as its description."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", Path: "string"}

Schema = dict[str, Any]


def of_class(cls: type, title: str, chosen_by: tuple[str, str] | None = None) -> Schema:
    """Return the schema of a dataclass; `chosen_by` is the key whose value picks this class, ("kind", "causal-lm")."""
    hints = typing.get_type_hints(cls)
    comments = field_comments(cls)
    properties: Schema = {}
    required = []
    if chosen_by is not None:
        properties[chosen_by[0]] = {"const": chosen_by[1]}
        required.append(chosen_by[0])
    for field in sorted(dataclasses.fields(cls), key=lambda each: each.kw_only is True):
        if field.name not in properties and field.init and not field.name.startswith("_"):
            properties[field.name] = _property(field, hints[field.name], comments.get(field.name, ""))
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                required.append(field.name)
    schema: Schema = {"title": title, "type": "object", "additionalProperties": False, "properties": properties}
    doc = (cls.__dict__.get("__doc__") or "").split("\n\n")[0]
    if doc and not doc.startswith(f"{cls.__name__}("):
        schema["description"] = _sentence(doc)
    return schema | ({"required": required} if required else {})


def of_hint(hint: Any) -> Schema:
    """Return the schema of a type hint; {} (anything) for what YAML cannot spell: jsonargparse judges it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if hint in (list, tuple, set) or origin in (list, tuple, set, frozenset) or _is_abstract_list(origin):
        inner = of_hint(arguments[0]) if len(set(arguments) - {Ellipsis}) == 1 else {}
        return {"type": "array"} | ({"items": inner} if inner else {})
    if hint is dict or origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        inner = of_hint(arguments[1]) if len(arguments) == 2 else {}
        return {"type": "object"} | ({"additionalProperties": inner} if inner else {})
    if dataclasses.is_dataclass(hint) and hint.__module__.startswith("finetune."):
        return of_class(typing.cast(type, hint), typing.cast(type, hint).__name__)
    return {}


def field_comments(cls: type) -> dict[str, str]:
    """Return the comment beside each field of our own classes, or above it: the unit or the meaning."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not owner.__module__.startswith(("finetune.", "test_")) or "__annotations__" not in owner.__dict__:
            continue
        lines = textwrap.dedent(inspect.getsource(owner)).splitlines()
        body = typing.cast(ast.ClassDef, ast.parse("\n".join(lines)).body[0]).body
        for node in body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = _comment(lines, node)
    return {name: comment for name, comment in found.items() if comment}


def _comment(lines: list[str], node: ast.AnnAssign) -> str:
    end = node.end_lineno or node.lineno
    beside = re.search(r"#(?!\s*type: ignore)\s*([^#]+)", lines[end - 1][node.end_col_offset or 0 :])
    if beside:
        comment = [beside[1].strip()]
        if "(" in beside[1] and ")" not in beside[1]:  # a comment that goes on below
            comment += [line.strip(" #") for line in lines[end : end + 2] if line.strip().startswith("#")]
        return " ".join(comment).strip()
    above = node.lineno - 2
    comment = []
    while above >= 0 and lines[above].strip().startswith("#"):
        comment.insert(0, lines[above].strip(" #"))
        above -= 1
    return " ".join(comment)


def _property(field: dataclasses.Field, hint: Any, comment: str) -> Schema:
    schema = of_hint(hint)
    if choices := field.metadata.get("choices"):
        schema = {"enum": [*choices, None] if field.default is None else list(choices)}
    if description := comment or _sentence(str(field.metadata.get("help") or "")):
        schema["description"] = description
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    default = default.value if isinstance(default, enum.Enum) else default
    if default is not dataclasses.MISSING and _is_plain(default):
        schema["default"] = list(default) if isinstance(default, tuple) else default
    return schema


def _union(arguments: tuple[Any, ...]) -> Schema:
    enums = [hint for hint in arguments if isinstance(hint, type) and issubclass(hint, enum.Enum)]
    if enums:  # `SchedulerType | str` means the names of SchedulerType
        arguments = tuple(hint for hint in arguments if hint is not str)
    branches = [of_hint(hint) for hint in arguments]
    if {} in branches:
        return {}
    unique = [branch for position, branch in enumerate(branches) if branch not in branches[:position]]
    if all(set(branch) == {"enum"} or branch == {"type": "null"} for branch in unique):
        return {"enum": [choice for branch in unique for choice in branch.get("enum", [None])]}
    if all(set(branch) == {"type"} for branch in unique):
        return {"type": [branch["type"] for branch in unique]} if len(unique) > 1 else unique[0]
    return {"anyOf": unique} if len(unique) > 1 else unique[0]


def _is_abstract_list(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _sentence(words: str) -> str:
    """Return the first sentence of a docstring or help text, on one short line."""
    first = re.split(r"(?<=[a-z`)\]])\.(?:\s|$)|\n\n", " ".join(words.split()), maxsplit=1)[0]
    return textwrap.shorten(first, 160, placeholder=" …")
