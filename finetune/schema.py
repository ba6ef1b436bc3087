"""The JSON schema of a recipe, made from the classes' type hints, so that names and types are refused without torch.

`python -m finetune.schema` writes schema.json anew; a test holds it against the classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from finetune.schema_types import Schema, of_class

FILE = Path(__file__).with_name("schema.json")
MADE_WITH = "x-made-with"  # versions of the libraries whose options stand in the schema
X_REFUSED = "x-refused"  # what to use instead of an option that this project refuses
FOREIGN = {"train": "transformers", "adapter": "peft"}  # sections whose options come from a library
NOT_IN_A_RECIPE = {  # fields of peft.PeftConfig that `attach` and PEFT itself fill in
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "runtime_config",
}  # fmt: skip


def load() -> Schema:
    """Return the schema that ships with the package."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def text() -> str:
    """Return the schema as an editor reads it (`# yaml-language-server: $schema=schema.json`)."""
    return FILE.read_text(encoding="utf-8").rstrip("\n")


def strangers(schema: Schema) -> set[str]:
    """Return the sections of other library versions than the schema's: only the classes themselves can judge them."""
    found = set()
    for section, library in FOREIGN.items():
        try:
            if version(library) != schema[MADE_WITH][library]:
                found.add(section)
        except PackageNotFoundError:
            continue  # what is not installed is refused by name all the same
    return found


def generate() -> Schema:
    """Make the schema from the classes of every section, task kind and PEFT type (imports all of them)."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    from finetune.adapters import HeadOnly
    from finetune.data.options import DataOptions
    from finetune.evaluation.options import EvaluateOptions
    from finetune.loading import ModelOptions
    from finetune.publishing.options import PublishOptions
    from finetune.tasks import TASKS, task_class
    from finetune.training.option_tables import ADDED, REDEFAULTED, REFUSED
    from finetune.training.options import TrainOptions

    definitions = {
        **{f"task.{kind}": of_class(task_class(kind), kind, ("kind", kind)) for kind in TASKS},
        "data": of_class(DataOptions, "data"),
        "model": of_class(ModelOptions, "model"),
        "train": of_train(TrainOptions, {**REDEFAULTED, **ADDED}, REFUSED),
        "evaluate": of_class(EvaluateOptions, "evaluate"),
        "publish": of_class(PublishOptions, "publish"),
        "adapter.head": of_class(HeadOnly, "head", ("peft_type", "head")),
        **{f"adapter.{kind.value}": of_adapter(kind.value, cls) for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()},
    }
    definitions["data"]["required"] = ["train"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "finetune recipe",
        MADE_WITH: {library: version(library) for library in FOREIGN.values()},
        "type": "object",
        "additionalProperties": False,
        "required": ["task", "data", "train"],
        "properties": {
            "task": {"oneOf": [_reference(name) for name in definitions if name.startswith("task.")]},
            "data": _reference("data"),
            "model": _reference("model"),
            "adapter": {
                "oneOf": [
                    {"type": "null"},
                    *(_reference(name) for name in definitions if name.startswith("adapter.")),
                ]
            },
            "train": _reference("train"),
            "evaluate": _reference("evaluate"),
            "publish": _reference("publish"),
        },
        "definitions": definitions,
    }


def of_adapter(kind: str, cls: type) -> Schema:
    """Return the schema of a PEFT configuration: what PEFT fills in itself left out, `target_modules: auto` ours."""
    schema = of_class(cls, kind, ("peft_type", kind))
    schema["properties"] = {
        name: value
        for name, value in schema["properties"].items()
        if name == "peft_type" or name not in NOT_IN_A_RECIPE
    }
    if "target_modules" in schema["properties"]:
        schema["properties"]["target_modules"]["default"] = "auto"
    return schema


def of_train(cls: type, added: Mapping[str, str], refused: Mapping[str, str]) -> Schema:
    """Return the schema of the training options: TrainingArguments' choices kept, refused options named."""
    schema, above = of_class(cls, "train"), of_class(cls.__mro__[1], "train")["properties"]
    for name, option in schema["properties"].items():
        if "enum" in above.get(name, {}) and "enum" not in option:  # `str | None` here: null for "decided later"
            option.pop("type", None)
            option["enum"] = [*above[name]["enum"], None]
        own, theirs = added.get(name), above.get(name, {}).get("description")
        if own or theirs:
            option["description"] = f"{theirs}; here: {own}" if own and theirs else own or theirs
    for name, instead in refused.items():
        schema["properties"][name] = {X_REFUSED: instead, "description": f"Refused: {instead}", "not": {}}
    schema["required"] = ["output_dir"]
    schema["properties"]["output_dir"] = {"type": "string", "description": "the folder that the run leaves"}
    return schema


def _reference(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def to_json(schema: Schema) -> str:
    """Write a schema with one option a line, so that a changed option is a changed line."""
    written = json.dumps({**schema, "definitions": {}}, indent=1, ensure_ascii=False)
    parts = []
    for name, definition in schema["definitions"].items():
        options = ",\n   ".join(
            f"{json.dumps(key)}: {json.dumps(value)}" for key, value in definition["properties"].items()
        )
        rest = json.dumps({key: value for key, value in definition.items() if key != "properties"})
        parts.append(f'  "{name}": {rest[:-1]}, "properties": {{\n   {options}\n  }}}}')
    return written.replace('"definitions": {}', '"definitions": {\n' + ",\n".join(parts) + "\n }") + "\n"


def _line(value: Schema) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    FILE.write_text(to_json(generate()), encoding="utf-8")
