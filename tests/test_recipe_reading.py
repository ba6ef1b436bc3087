from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.errors import UserError
from finetune.recipe_reading import Given, Loader, Written, override, read_file, to_yaml


def read(text: str) -> Any:
    return yaml.load(text, Loader)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("2E5", 2e5),
        ("1.5", 1.5),
        ("-.5", -0.5),
        ("1.", 1.0),
        (".inf", float("inf")),
        ("10", 10),
        ("010", 10),  # YAML 1.1 says 8
        ("0x1F", 31),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("1e5x", "1e5x"),
        ('"2e-5"', "2e-5"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object):
    found = read(text)

    assert found == value
    assert type(found) is type(value)


def test_keys_are_text():
    assert read("{0: a, true: b, null: c, off: d}") == {"0": "a", "true": "b", "null": "c", "off": "d"}


AWKWARD = (
    *(
        "2e-5",
        "off",
        "null",
        "~",
        "",
        "1:30",
        "2024-01-01",
        "0x1F",
        "010",
        "1_000",
        ".5",
        ".inf",
        "true",
        "No",
        "<<",
        "=",
    ),
    *(
        "a: b",
        "# c",
        "*x",
        "&x",
        "!tag",
        "%",
        "@",
        "- a",
        "[a]",
        "{a}",
        " lead",
        "trail ",
        "two\nlines",
        "\t",
        "'",
        '"',
        "é",
    ),
    *(0, -1, 2**70, 1.0, 2e-5, -0.1, 1e300, float("inf"), True, False, None, [], {}),
)


def test_what_is_written_reads_back_unchanged():
    value = {"list": list(AWKWARD), "keys": {str(key): [{"inner": key}] for key in AWKWARD}}

    found = read(to_yaml(value))

    assert found == value
    assert [type(each) for each in found["list"]] == [type(each) for each in AWKWARD]


def test_every_value_knows_its_line(tmp_path: Path):
    file = tmp_path / "my.yaml"
    file.write_text("task:\n  kind: causal-lm\ndata:\n  train:\n    - a.txt\n    - path: b.txt\n", encoding="utf-8")

    lines = read_file(file).lines

    assert lines["task",] == 1
    assert lines["task", "kind"] == 2
    assert lines["data", "train", 1, "path"] == 6


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("task: {kind: a}\ntask: {kind: b}\n", 2, "task is given twice"),
        ("train:\n  seed: 1\n  bf16: true\n  seed: 2\n", 4, "train.seed is given twice"),
        ("train:\n  seed: 1\n bf16: true\n", 3, "not YAML"),
        ("train: [1, 2\n", 2, "not YAML"),
        ("train:\n\tseed: 1\n", 2, "tabs"),
        ("data:\n  train: *.csv\n", 2, "quotes"),
        ("a: &x\n  b: *x\n", 1, "anchor"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, text: str, line: int, word: str):
    file = tmp_path / "my.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(UserError, match=rf"my\.yaml:{line}: ") as error:
        read_file(file)

    assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"just words", b"- a\n- b\n", b"\xff\xfe\x00", b"---\na: 1\n---\nb: 1\n"])
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path: Path, content: bytes):
    file = tmp_path / "my.yaml"
    file.write_bytes(content)

    if content == b"":
        assert read_file(file).values == {}
        return
    with pytest.raises(UserError, match=r"my\.yaml") as error:
        read_file(file)
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_not_there_names_the_nearest_one(tmp_path: Path):
    (tmp_path / "quickstart.yaml").write_text("task: {}", encoding="utf-8")

    with pytest.raises(UserError, match=r"quickstrat\.yaml\. Did you mean .*quickstart\.yaml\?"):
        read_file(tmp_path / "quickstrat.yaml")


def changed(values: dict, **overrides: object) -> dict:
    given = Given(values)
    override(given, {name.replace("__", "."): value for name, value in overrides.items()})
    return given.values


def test_overrides_are_read_as_yaml_and_reach_any_depth():
    found = changed(
        {
            "model": {"config": {"n_layer": 4, "n_head": 4}},
            "data": {"train": ["a", {"path": "b"}]},
            "adapter": {"r": 8},
        },
        model__config__n_layer=Written("2"),
        data__train__1__weight=Written("0.5"),
        train__learning_rate=Written("2e-5"),
        adapter=Written("null"),
    )

    assert found == {
        "model": {"config": {"n_layer": 2, "n_head": 4}},
        "data": {"train": ["a", {"path": "b", "weight": 0.5}]},
        "train": {"learning_rate": 2e-5},
        "adapter": None,
    }


def test_an_override_inside_a_plain_value_replaces_it():
    assert changed({"data": {"validation": "v.csv"}}, data__validation__fraction=Written("0.1")) == {
        "data": {"validation": {"fraction": 0.1}}
    }


def test_an_option_is_called_as_its_author_wrote_it(tmp_path: Path):
    file = tmp_path / "my.yaml"
    file.write_text("task:\n  kind: causal-lm\ntrain:\n  seed: 1\n", encoding="utf-8")
    given = read_file(file)
    override(given, {"train.seed": Written("2")})

    assert given.name(("task", "kind")) == f"{file}:2: task.kind"
    assert given.name(("task", "text")) == f"{file}:1: task.text"
    assert given.name(("train", "seed")) == "--train.seed"
    assert given.name(("model", "path")) == f"{file}: model.path"


def test_a_section_that_the_command_line_made_has_no_line_of_the_file(tmp_path: Path):
    file = tmp_path / "my.yaml"
    file.write_text("train:\n  seed: 1\n  sgd:\n    slow: true\n", encoding="utf-8")
    given = read_file(file)
    override(given, {"train.dp.epsilon": Written("8"), "train.sgd.fast": Written("1")})

    assert given.name(("train", "dp")) == "--train.dp"
    assert given.name(("train", "sgd")) == f"{file}:3: train.sgd"
    assert given.name(("train",)) == f"{file}:1: train"
