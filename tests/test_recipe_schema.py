from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from finetune import schema
from finetune.recipe_names import problems
from finetune.schema_types import field_comments, of_class, of_hint


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("hint", "made"),
    [
        (int, {"type": "integer"}),
        (int | None, {"type": ["integer", "null"]}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (Literal["a"] | None, {"enum": ["a", None]}),
        (Colour | str, {"enum": ["red", "blue"]}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (tuple[str, ...], {"type": "array", "items": {"type": "string"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (dict[str, Any] | str | None, {"type": ["object", "string", "null"]}),
        (Any, {}),
    ],
)
def test_a_type_hint_has_the_schema_that_it_means(hint: Any, made: dict):
    assert of_hint(hint) == made


@dataclass
class Options:
    """What an example takes. More is said here."""

    # above
    path: str
    size: int = 3  # in tokens
    hidden: str = field(default="", init=False)
    names: list[str] = field(default_factory=list)


def test_a_dataclass_brings_its_comments_defaults_and_requirements():
    made = of_class(Options, "options")

    assert field_comments(Options) == {"path": "above", "size": "in tokens"}
    assert made["description"] == "What an example takes"
    assert made["required"] == ["path"]
    assert made["properties"] == {
        "path": {"type": "string", "description": "above"},
        "size": {"type": "integer", "description": "in tokens", "default": 3},
        "names": {"type": "array", "items": {"type": "string"}, "default": []},
    }


@pytest.fixture(scope="module")
def generated() -> dict:
    if schema.strangers(schema.load()):
        pytest.skip("schema.json was made with other versions of transformers or peft")
    return schema.generate()


def test_the_shipped_schema_is_that_of_the_classes(generated: dict):
    assert schema.FILE.read_text(encoding="utf-8") == schema.to_json(generated), "run: python -m finetune.schema"


def test_the_schema_knows_every_option_of_every_section(generated: dict):
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from transformers import TrainingArguments

    definitions = generated["definitions"]
    known = set(definitions["train"]["properties"])

    assert {each.name for each in dataclasses.fields(TrainingArguments)} <= known
    for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        options = {each.name for each in dataclasses.fields(cls) if each.init} - schema.NOT_IN_A_RECIPE
        assert options <= set(definitions[f"adapter.{kind.value}"]["properties"])


def test_every_default_is_allowed_by_its_own_schema(generated: dict):
    wrong = []
    for name, definition in generated["definitions"].items():
        for option, value in definition["properties"].items():
            if schema.X_REFUSED in value or value.get("default") is None:
                continue  # PEFT writes `x: str = None` for many an option
            wrong += [(name, option, found) for found in problems(value["default"], value, (option,))]

    assert not wrong


def test_every_definition_is_reached_and_every_reference_resolves(generated: dict):
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for inner in value.values() for found in references(inner)]
        return [found for inner in value for found in references(inner)] if isinstance(value, list) else []

    named = {found.removeprefix("#/definitions/") for found in references(generated)}

    assert named == set(generated["definitions"])
    assert json.loads(schema.text()) == generated


def test_options_of_another_version_of_a_library_are_left_to_its_classes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    from finetune.errors import UserError
    from finetune.recipe import read_names

    recipe = tmp_path / "my.yaml"
    recipe.write_text(
        "task: {kind: causal-lm}\ndata: {train: a}\ntrain: {output_dir: r, new_option: 1}\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match="new_option"):
        read_names(recipe)

    monkeypatch.setattr(schema, "version", lambda library: "99")

    assert read_names(recipe).values["train"]["new_option"] == 1
