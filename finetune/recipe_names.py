"""Hold what a recipe says against the schema: unknown names, wrong types and choices, missing values, without torch."""

from __future__ import annotations

import json
from typing import Any

from finetune import schema as schemas
from finetune.errors import UserError, did_you_mean
from finetune.publishing.scrubbing import holds_secret
from finetune.recipe_reading import Given, Place, typed_value

DISCRIMINATORS = {"task": "kind", "adapter": "peft_type"}  # the option that picks the class of a section
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a mapping",
}
EXAMPLES = {
    "task": "task: {kind: text-classification}",
    "data": "data: {train: reviews.csv}",
    "train": "train: {output_dir: runs/reviews}",
}

Problem = tuple[Place, str]  # where, and the rest of the sentence after the option's name

SAFE = "take it out, revoke it if others saw it, and set HF_TOKEN or run `hf auth login`."


def check(given: Given) -> None:
    """Raise UserError for the first thing in a recipe that no class would take."""
    refuse_secrets(given, given.values, ())
    schema = schemas.load()
    sections = schema["properties"]
    for section, values in list(given.values.items()):
        if section not in sections:
            known = f" of a recipe; sections: {', '.join(sections)}."
            raise UserError(f"{given.name((section,))} is not a section{known}{nearest(section, sections)}")
        if values is None and section != "adapter":
            del given.values[section]  # `evaluate:` with nothing below it
    for section in schema["required"]:
        if section not in given.values:
            raise UserError(
                f"{given.source or 'the recipe'}: the section {section} is missing, such as {EXAMPLES[section]}"
            )
    strangers = schemas.strangers(schema)
    for section, values in given.values.items():
        definition = _definition(schema, given, section, values)
        if definition is None:
            continue
        if section in strangers and isinstance(values, dict):
            continue
        for place, problem in problems(values, definition, (section,)):
            if _fits_as_text(given, place, definition):
                continue
            raise UserError(f"{given.name(place)} {problem}")


def nearest(name: str, known: Any) -> str:
    """Return " Did you mean X?" for a name that differs in case, or little; "" when none is near."""
    same = {str(other).lower().replace("-", "_"): str(other) for other in known}
    match = same.get(str(name).lower().replace("-", "_"))
    return f" Did you mean {match}?" if match else did_you_mean(name, known)


def problems(value: Any, schema: dict[str, Any], place: Place) -> list[Problem]:
    """Return what in `value` the schema does not allow."""
    if schemas.X_REFUSED in schema:
        return [(place, f"is refused: {schema[schemas.X_REFUSED]}")]
    if "anyOf" in schema:
        return _union_problems(value, schema, place)
    if "const" in schema or "enum" in schema:
        choices = schema.get("enum") or [schema["const"]]
        near = nearest(value, choices) if isinstance(value, str) else ""
        agree = any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)
        return [] if agree else [(place, f"is {_shown(value)}; known: {_listed(choices)}.{near}")]
    if not _has_type(value, schema):
        return [(place, f"is {_shown(value)}; it must be {_wanted(schema)}.{_written(value, schema)}")]
    if isinstance(value, dict):
        return _mapping_problems(value, schema, place)
    if isinstance(value, list) and "items" in schema:
        return [found for index, item in enumerate(value) for found in problems(item, schema["items"], (*place, index))]
    return []


def _definition(schema: dict[str, Any], given: Given, section: str, values: Any) -> dict[str, Any] | None:
    """Return the schema that a section is held against; None where nothing is to be checked here."""
    if section not in DISCRIMINATORS:
        return schema["definitions"][section]
    if section == "adapter" and values is None:
        return None
    key = DISCRIMINATORS[section]
    if not isinstance(values, dict):
        raise UserError(f"{given.name((section,))} is {_shown(values)}; it must be a mapping with {key}.")
    kinds = [name.split(".", 1)[1] for name in schema["definitions"] if name.startswith(f"{section}.")]
    if key not in values:
        raise UserError(f"{given.name((section,))}.{key} is missing; known: {_listed(kinds)}.")
    kind = values[key]
    if section == "task" and isinstance(kind, str) and ":" in kind:
        return None  # a task outside this repository, "module:Class": its own class judges
    if kind not in kinds:
        if section in schemas.strangers(schema):
            return None
        raise UserError(
            f"{given.name((section, key))} is {_shown(kind)}; known: {_listed(kinds)}.{nearest(kind, kinds)}"
        )
    return schema["definitions"][f"{section}.{kind}"]


def _mapping_problems(value: dict[str, Any], schema: dict[str, Any], place: Place) -> list[Problem]:
    options = schema.get("properties")
    others = schema.get("additionalProperties", True)
    found: list[Problem] = []
    for name, item in value.items():
        if options is not None and name in options:
            found += problems(item, options[name], (*place, name))
        elif others is False:
            title = _title(schema, place)
            found.append(((*place, name), f"is not an option of {title}.{nearest(name, options or {})}"))
        elif isinstance(others, dict):
            found += problems(item, others, (*place, name))
    for name in schema.get("required", []):
        if name not in value:
            about = schema["properties"][name].get("description")
            found.append(((*place, name), f"is missing{f' ({about})' if about else ''}."))
    return found


def _union_problems(value: Any, schema: dict[str, Any], place: Place) -> list[Problem]:
    """Return the problems of the branch that fits best: the one whose first problem lies deepest."""
    branches = [problems(value, branch, place) for branch in schema["anyOf"]]
    if [] in branches:
        return []
    fitting = [found for found in branches if len(found[0][0]) > len(place)]
    if fitting:
        return max(fitting, key=lambda found: (len(found[0][0]), -len(found), "Did you mean" in found[0][1]))
    choices = [choice for branch in schema["anyOf"] for choice in branch.get("enum", [])]
    near = nearest(value, choices) if isinstance(value, str) else ""
    return [(place, f"is {_shown(value)}; it must be {_wanted(schema)}.{near or _written(value, schema)}")]


def _fits_as_text(given: Given, place: Place, definition: dict[str, Any]) -> bool:
    """Take a command line's `--model.revision 2024` as the text that it is, where a number is not possible."""
    if place not in given.texts:
        return False
    holder: Any = given.values
    for key in place[:-1]:
        holder = holder[key]
    number, holder[place[-1]] = holder[place[-1]], str(given.texts[place])
    if any(found == place for found, _ in problems(given.values[place[0]], definition, place[:1])):
        holder[place[-1]] = number
        return False
    return True


def _has_type(value: Any, schema: dict[str, Any]) -> bool:
    wanted = schema.get("type")
    if wanted is None:
        return True
    names = wanted if isinstance(wanted, list) else [wanted]
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, TYPES[name]) for name in names)


def _wanted(schema: dict[str, Any]) -> str:
    """Return what a schema takes, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_wanted(branch) for branch in schema["anyOf"]))
    if "enum" in schema:
        return "one of " + _listed(schema["enum"])
    wanted = schema.get("type", "object")
    names = wanted if isinstance(wanted, list) else [wanted]
    words = [WORDS[name] for name in names]
    if names == ["array"] and "type" in schema.get("items", {}) and isinstance(schema["items"]["type"], str):
        inner = schema["items"]["type"]
        words = [f"a list of {WORDS[inner].removeprefix('a ')}{'s' if inner in ('integer', 'number') else ''}"]
    if names == ["object"] and "properties" in schema:
        words = [f"a mapping of {', '.join(schema['properties'])}"]
    return " or ".join(words)


def _written(value: Any, schema: dict[str, Any]) -> str:
    """Return " Write it so: [3]." for what is meant as a list, how infinity is written, or ""."""
    for branch in schema.get("anyOf", [schema]):
        if branch.get("type") == "array" and isinstance(value, str | int | float) and len(str(value)) <= 60:
            listed = typed_value(f"[{value}]")
            if isinstance(listed, list) and listed and not problems(listed, branch, ()):
                return f" Write it so: [{value}]."
        if "number" in str(branch.get("type")) and str(value).lower() in ("inf", "-inf", "infinity"):
            return " Infinity is written .inf."
    return ""


def _title(schema: dict[str, Any], place: Place) -> str:
    """Return how a mapping is called in a message: "text-classification", "LORA", "data", "data.validation"."""
    if len(place) == 1:
        return schema["title"]
    return ".".join(map(str, place))


def _listed(choices: list[Any]) -> str:
    """Return the first dozen of what is known."""
    words = [choice if isinstance(choice, str) else json.dumps(choice) for choice in choices]
    return ", ".join(words[:12]) + (", … (`finetune schema` lists them all)" if len(words) > 12 else "")


def _shown(value: Any) -> str:
    """Return a value as YAML's reader would recognise it, cut to 60 characters."""
    written = json.dumps(value, ensure_ascii=False, default=str)
    return written if len(written) <= 60 else written[:59] + "…"


def refuse_secrets(given: Given, value: Any, place: Place) -> None:
    """Refuse a value that looks like a token: a recipe is kept, shown and published; the line does not repeat it."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, str) and holds_secret(key):
                raise UserError(f"{given.name(place) or 'the recipe'}: a name in it looks like a token; {SAFE}")
            refuse_secrets(given, inner, (*place, key))
    elif isinstance(value, str) and holds_secret(value):
        raise UserError(f"{given.name(place)} holds what looks like a token; {SAFE}")
