"""What `finetune --help` and `finetune VERB --help` print; from the schema, without importing torch."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetune import schema as schemas
from finetune.command_line import shown

if TYPE_CHECKING:
    from finetune.command_line import Verb

WIDTH = 110


def of_command(verbs: Mapping[str, Verb]) -> str:
    """Return the help of the whole command: its verbs, and how options are given."""
    width = max(len(_call(name, verb)) for name, verb in verbs.items())
    lines = [f"  {_call(name, verb):<{width}}  {verb.help}" for name, verb in verbs.items()]
    return "\n".join(
        [
            "usage: finetune VERB … [--section.option VALUE …]",
            "",
            "Fine-tune BERT- and GPT-2-style models on your own data, and know how good the result really is.",
            "",
            *lines,
            "",
            "Any option of a recipe may follow: --train.learning_rate 2e-4 --adapter.r 16 --adapter null.",
            "It goes before what the file says, and the file before the defaults. `finetune VERB --help` lists them.",
            "Exit codes: 0 done, 2 a mistake in what was given, 3 the run failed a check of its own, 4 the machine.",
        ]
    )


def of_verb(name: str, verb: Verb) -> str:
    """Return the help of one verb, with the options of a recipe by section where it takes them."""
    lines = [f"usage: finetune {_call(name, verb)}", "", verb.help]
    if verb.flags:
        lines += ["", *_table({f"--{flag}": about for flag, about in verb.flags.items()})]
    if verb.overrides:
        lines += ["", *_sections()]
    return "\n".join(lines)


def _call(name: str, verb: Verb) -> str:
    given = (f"[{shown(each)}]" if each in verb.optional else shown(each) for each in verb.positions)
    return " ".join([name, *given])


def _sections() -> list[str]:
    schema = schemas.load()
    lines: list[str] = []
    kinds = [name for name in schema["definitions"] if name.startswith("adapter.")]
    for name, definition in schema["definitions"].items():
        section = name.split(".")[0]
        if section == "adapter" and name != "adapter.LORA":
            continue  # 45 methods: `finetune schema` lists them all
        about = definition.get("description", "")
        lines += [
            f"{section}, kind {definition['title']}: {about}" if "." in name else f"{section}: {about}".rstrip(": ")
        ]
        if section == "adapter":
            names = ", ".join(kind.split(".")[1] for kind in kinds)
            lines[-1] = "adapter, options of peft_type LORA; `finetune schema` has those of the other types:"
            lines += textwrap.wrap(names, WIDTH, initial_indent="    ", subsequent_indent="    ")
        options = {
            f"--{section}.{option}": _about(value)
            for option, value in definition["properties"].items()
            if schemas.X_REFUSED not in value
        }
        lines += [*_table(options), ""]
    return lines


def _about(option: dict[str, Any]) -> str:
    if "const" in option:
        return json.dumps(option["const"])
    parts = [option.get("description", "")]
    if "enum" in option:
        parts.append("one of " + ", ".join(str(choice) for choice in option["enum"] if choice is not None))
    if option.get("default") not in (None, [], {}):
        parts.append(f"default {json.dumps(option['default'], ensure_ascii=False)}")
    return "; ".join(part for part in parts if part)


def _table(rows: dict[str, str]) -> list[str]:
    indent = " " * 34
    lines = []
    for name, about in rows.items():
        wrapped = textwrap.wrap(about, WIDTH - len(indent)) or [""]
        if len(name) > len(indent) - 4:
            lines += [f"  {name}", *(f"{indent}{line}" for line in wrapped)]
        else:
            lines += [f"  {name:<{len(indent) - 2}}{wrapped[0]}", *(f"{indent}{line}" for line in wrapped[1:])]
    return [line.rstrip() for line in lines]
