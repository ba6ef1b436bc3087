"""Broken files, labels, lengths and models through the whole command: one line, exit 2, no traceback, nothing written.

Broken names, types and choices of recipes stand in test_cli_refusals.py.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pace import slowness

from finetune.cli import main

Files = dict[str, str | bytes]
GOOD = "".join(json.dumps({"text": f"text number {n} {'good' if n % 2 else 'bad'}", "label": n % 2}) + "\n"
               for n in range(20))  # fmt: skip
LM = {"task": {"kind": "causal-lm", "label": None, "text": "text"}, "model": {"path": "gpt2"}}


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def csv(*rows: str) -> str:
    return "\n".join(rows) + "\n"


# (name, files, changes of the recipe's sections, what the line says)
CASES: list[tuple[str, Files, dict[str, Any], str]] = [
    # files
    ("no-file", {}, {"data": {"train": "trian.jsonl"}}, r"trian\.jsonl.*Did you mean train\.jsonl"),
    ("empty-file", {"train.jsonl": ""}, {}, r"train\.jsonl"),
    ("folder-without-data", {"folder/readme.md": "x"}, {"data": {"train": "folder"}}, "folder"),
    ("glob-without-match", {}, {"data": {"train": "rows-*.csv"}}, r"rows-\*\.csv"),
    ("unknown-format", {"train.xyz": "x"}, {"data": {"train": "train.xyz"}}, r"train\.xyz"),
    ("malformed-json", {"train.jsonl": GOOD + '{"text": "a", "label": }\n'}, {}, r"train\.jsonl:21"),
    ("json-list-line", {"train.jsonl": GOOD + '["a", 1]\n'}, {}, r"train\.jsonl:21"),
    ("cut-off-json", {"train.jsonl": GOOD + '{"text": "a", "lab'}, {}, r"train\.jsonl:21"),
    ("not-utf8", {"train.jsonl": GOOD.encode() + b'{"text": "caf\xe9"}\n'}, {}, r"train\.jsonl:21.*encoding"),
    ("utf16", {"train.jsonl": GOOD.encode("utf-16")}, {}, r"train\.jsonl.*encoding"),
    ("ragged-csv", {"t.csv": csv("text,label", "a,1", "b", "c,0")}, {"data": {"train": "t.csv"}}, r"t\.csv:3"),
    ("double-header", {"t.csv": csv("text,text,label", "a,b,1")}, {"data": {"train": "t.csv"}}, r"t\.csv:1.*text"),
    ("open-quote", {"t.csv": csv("text,label", '"a,1', "b,0")}, {"data": {"train": "t.csv"}}, r"t\.csv:2"),
    ("broken-parquet", {"t.parquet": b"PAR1 not really"}, {"data": {"train": "t.parquet"}}, r"t\.parquet"),
    ("header-only", {"t.csv": "text,label\n"}, {"data": {"train": "t.csv"}}, r"t\.csv"),
    # columns and texts
    ("missing-column", {"train.jsonl": GOOD.replace('"text"', '"txt"')}, {}, r'text.*txt'),
    ("missing-label", {"train.jsonl": GOOD.replace('"label"', '"lable"')}, {}, r"label.*Did you mean"),
    ("column-map-to-nothing", {}, {"data": {"columns": {"text": "review"}}}, "review"),
    ("one-row-without-text", {"train.jsonl": GOOD + jsonl({"label": 1})}, {}, r"train\.jsonl:21"),
    ("empty-text", {"train.jsonl": GOOD + jsonl({"text": "   ", "label": 1})}, {}, r"train\.jsonl:21.*text"),
    ("text-is-a-number", {"train.jsonl": GOOD + jsonl({"text": 5, "label": 1})}, {}, r"train\.jsonl:21"),
    ("null-text", {"train.jsonl": GOOD + jsonl({"text": None, "label": 1})}, {}, r"train\.jsonl:21"),
    ("missing-pair", {}, {"task": {"pair": "second"}}, "second"),
    # labels
    ("null-label", {"train.jsonl": GOOD + jsonl({"text": "a b", "label": None})}, {}, r"train\.jsonl:21"),
    ("mixed-labels", {"train.jsonl": GOOD + jsonl({"text": "a b", "label": "one"})}, {}, r"train\.jsonl:21"),
    ("one-class", {"train.jsonl": GOOD.replace('"label": 1', '"label": 0')}, {}, "nothing to learn"),
    ("unseen-label", {"test.jsonl": jsonl({"text": "x y", "label": 2})}, {}, r"test\.jsonl:1.*'2'"),
    ("unknown-label-name", {}, {"task": {"labels": ["0", "1", "2"]}}, r"no training row has the label '2'"),
    ("no-number", {"train.jsonl": GOOD.replace('"label": 1', '"label": "much"')},
     {"task": {"problem": "regression"}}, r"train\.jsonl"),
    ("class-weight-of-nothing", {}, {"task": {"class_weights": {"3": 2.0}}}, "'3' is not a label"),
    ("class-weight-zero", {}, {"task": {"class_weights": {"1": 0.0}}}, "above 0"),
    # splits, duplicates, leaks
    ("leak", {"test.jsonl": GOOD}, {}, r"test\.jsonl:1.*train\.jsonl:1"),
    ("validation-is-train", {"validation.jsonl": GOOD}, {"data": {"validation": "validation.jsonl"}},
     r"validation\.jsonl:1"),
    ("duplicates", {"train.jsonl": GOOD + GOOD}, {"data": {"duplicates": "error"}}, r"train\.jsonl:21"),
    ("holdout-too-small", {}, {"data": {"validation": {"fraction": 0.001}}}, "fraction"),
    ("holdout-of-everything", {}, {"data": {"validation": {"fraction": 1.5}}}, "fraction"),
    ("group-column-missing", {}, {"data": {"validation": {"fraction": 0.2, "group": "user"}}}, "user"),
    # lengths
    ("too-long", {}, {"task": {"max_length": 4}, "data": {"on_long": "error"}}, r"train\.jsonl:1.*max_length"),
    ("all-dropped", {}, {"task": {"max_length": 3}, "data": {"on_long": "drop"}}, "longer than"),
    ("longer-than-the-model", {}, {"task": {"max_length": 65}}, "64 positions"),
    ("no-room", {}, {"task": {"max_length": 2}}, "max_length"),
    ("block-longer-than-the-model", {}, {**LM, "task": {"kind": "causal-lm", "block_size": 65}}, "64 positions"),
    # models
    ("no-model", {}, {"model": {"path": "./brt"}}, r"brt.*Did you mean"),
    ("no-package", {}, {"model": {"path": "package://not_installed_here/model"}}, "not_installed_here"),
    ("wrong-digest", {}, {"model": {"sha256": "0" * 64}}, "sha256"),
    ("pickled-weights", {"old/config.json": '{"model_type": "bert"}', "old/pytorch_model.bin": b"\x80\x04"},
     {"model": {"path": "old", "tokenizer": "bert"}}, "safetensors"),
    ("broken-weights", {"broken/config.json": '{"model_type": "bert"}', "broken/model.safetensors": b"xx"},
     {"model": {"path": "broken", "tokenizer": "bert"}}, "broken"),
    ("broken-config", {"broken/config.json": "{", "broken/model.safetensors": b"xx"}, {"model": {"path": "broken"}},
     r"config\.json"),
    ("unknown-family", {}, {"model": {"path": None, "config": {"model_type": "gpt22"}}}, "Did you mean gpt2"),
    ("unknown-size", {}, {"model": {"path": None, "config": {"model_type": "gpt2", "n_layers": 2}}},
     "Did you mean n_layer"),
    ("unknown-target", {}, {"adapter": {"peft_type": "LORA", "target_modules": ["qery"]}}, "Did you mean query"),
    ("method-that-cannot", {}, {**LM, "task": {"kind": "causal-lm", "block_size": 32},
                                "adapter": {"peft_type": "OFT"}}, "OFT"),
    # the run's folder
    ("output-is-a-file", {"runs": "x"}, {"train": {"output_dir": "runs"}}, "runs"),
    ("output-has-other-files", {"other/thesis.txt": "x"}, {"train": {"output_dir": "other"}}, r"thesis\.txt"),
]  # fmt: skip

# Nothing but the weights, or the model that they are of, can tell these.
BY_WEIGHTS = {"wrong-digest", "pickled-weights", "broken-weights", "unknown-target", "method-that-cannot"}
SECONDS = 15  # of an idle core, for a whole command that is refused; 5 are usual, most of them imports


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with links to the tiny models and a good train file."""
    for name in ("bert", "gpt2"):
        (tmp_path / name).symlink_to(home / name)
    (tmp_path / "train.jsonl").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(place: Path, files: Files, changes: dict[str, Any]) -> None:
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    sections: dict[str, Any] = {
        "task": {"kind": "text-classification", "max_length": 32},
        "data": {"train": "train.jsonl"},
        "model": {"path": "bert"},
        "train": {"output_dir": "runs/x", "max_steps": 1, "bf16": False},
    }
    if (place / "test.jsonl").exists():
        sections["data"]["test"] = "test.jsonl"
    for name, options in changes.items():
        other_kind = name == "task" and options.get("kind", "text-classification") != "text-classification"
        sections[name] = options if other_kind else {**sections.get(name, {}), **options}
        sections[name] = {key: value for key, value in sections[name].items() if value is not None}
    (place / "recipe.yaml").write_text(yaml.safe_dump(sections))


def seconds_of_children() -> float:
    """Return the processor time of the processes that ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def files_of(place: Path) -> set[Path]:
    return {path for path in place.rglob("*") if path.is_file()}


def refused(capsys: pytest.CaptureFixture[str], contract: Any, line: str, weights: bool = False) -> None:
    """Train recipe.yaml, and assert that it ends with 2 and one line, which this pattern is found in.

    No weights are loaded for that, unless it is `weights` that have to tell.
    """

    def loaded(*given: Any, **named: Any) -> None:
        raise AssertionError("weights were loaded before the mistake was found")

    with pytest.MonkeyPatch.context() as patch:
        if not weights:
            patch.setattr("finetune.run.load_model", loaded)
        code = main(["train", "recipe.yaml"])

    error = capsys.readouterr().err
    said = [each for each in error.splitlines() if each.startswith("finetune: ")]
    assert code == 2, error
    assert len(said) == 1, error
    assert "Traceback" not in error
    assert re.search(line, said[0]), said[0]
    contract("I1", broken_inputs=1)


@pytest.mark.parametrize(("name", "files", "changes", "line"), CASES, ids=[case[0] for case in CASES])
def test_a_broken_input_is_one_line_exit_2_and_nothing_written(
    place, capsys, contract, name, files, changes, line
) -> None:
    write(place, files, changes)
    before = files_of(place)

    refused(capsys, contract, line, weights=name in BY_WEIGHTS)
    assert files_of(place) == before


@pytest.mark.parametrize(
    "case",
    [pytest.param(CASES[37], id=CASES[37][0])]  # a process of 5 to 10 s each
    + [
        pytest.param(CASES[number], id=CASES[number][0], marks=pytest.mark.slow)
        for number in (0, 5, 8, 15, 24, 26, 31, 42, 46)
    ],
)
def test_the_real_command_says_the_same_and_soon(place, contract, case) -> None:
    _, files, changes, line = case
    write(place, files, changes)
    before, spent, pace = files_of(place), seconds_of_children(), slowness()

    done = subprocess.run(
        [sys.executable, "-m", "finetune", "train", "recipe.yaml"], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip

    taken = (seconds_of_children() - spent) / max(pace, slowness())
    assert done.returncode == 2, done.stderr
    assert taken < SECONDS
    assert "Traceback" not in done.stderr
    assert re.search(line, [each for each in done.stderr.splitlines() if each.startswith("finetune: ")][-1])
    assert files_of(place) == before
    contract("I1", commands=1, seconds=taken)
