"""Clean files of every odd but legal kind are read; mistakes have their line, the millionth too, twenty at a time."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import tiny
from datasets import Dataset, DatasetDict
from pace import slowness
from PIL import Image

from finetune.data import DataOptions, load_splits
from finetune.data.options import ImageOptions
from finetune.errors import UserError
from finetune.task import Columns
from finetune.tasks.chat import Chat

TEXTS = Columns(("text",), "label")
WORDS = Columns(("tokens",), "ner_tags", words="tokens")
QUESTIONS = Columns(("question", "context"), "answers", passage="context")
MILLION = 1_000_000
SECONDS_A_GB, SECONDS_A_MILLION = 10.0, 30.0  # of an idle core: for the letters, and for the rows beside them
ASKED = {"question": "How?", "context": "it felt warm", "answers": {"text": ["warm"], "answer_start": [8]}}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(tmp_path)


def read(name: str, content: str | bytes, columns: Columns, **options: Any) -> Any:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_splits(DataOptions(train=name, **options), columns, ("train",)).rows["train"]


def line(**row: Any) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


ROW = line(text="a fine film", label="x")
SQUAD = {"data": [{"title": "t", "paragraphs": [{"context": "it felt warm", "qas": [
    {"id": "q", "question": "How?", "answers": [{"text": "warm", "answer_start": 8}]}]}]}]}  # fmt: skip
CLEAN: dict[str, tuple[str, str | bytes, Columns, dict[str, Any]]] = {
    "byte-order mark": ("a.jsonl", b"\xef\xbb\xbf" + ROW.encode(), TEXTS, {}),
    "CRLF": ("a.jsonl", ROW.replace("\n", "\r\n"), TEXTS, {}),
    "no newline at the end": ("a.jsonl", ROW.strip(), TEXTS, {}),
    "empty lines between": ("a.jsonl", f"\n{ROW}\n\n{line(text='dull', label='y')}\n", TEXTS, {}),
    "JSON array": ("a.json", json.dumps([json.loads(ROW)]), TEXTS, {}),
    "JSON array, indented": ("a.json", json.dumps([json.loads(ROW)] * 2, indent=2), TEXTS, {}),
    "unicode": ("a.jsonl", line(text="Ünï𝔸 🎬 日本語 العربية \u200d e\u0301", label="ß"), TEXTS, {}),
    "unicode escapes": ("a.jsonl", json.dumps({"text": "🎬 日本", "label": "x"}) + "\n", TEXTS, {}),
    "one row": ("a.csv", "text,label\na fine film,x\n", TEXTS, {}),
    "one letter": ("a.csv", "text,label\na,x\n", TEXTS, {}),
    "other columns beside": ("a.jsonl", line(id=7, text="fine", label="x", more={"a": [1, None]}), TEXTS, {}),
    "columns that change": ("a.jsonl", line(text="a", label="x", n=1) + line(text="b", label="y", n="z"), TEXTS, {}),
    "newlines and quotes in cells": ("a.csv", 'text,label\n"a ""fine""\nfilm, they say",x\n', TEXTS, {}),
    "separators inside a JSON text": ("a.jsonl", line(text="one\u2028two\u2029three\x85four", label="x"), TEXTS, {}),
    "TSV with a quote": ("a.tsv", 'text\tlabel\n"fine\tx\n', TEXTS, {}),
    "TSV with a quote, after an empty line": ("a.tsv", '\ntext\tlabel\n"fine\tx\n', TEXTS, {}),
    "labels that are numbers": ("a.csv", "text,label\na,0\nb,1\n", TEXTS, {}),
    "labels that are truths": ("a.jsonl", line(text="a", label=True) + line(text="b", label=False), TEXTS, {}),
    "gzip": ("a.jsonl.gz", gzip.compress(ROW.encode()), TEXTS, {}),
    "UTF-16, named": ("a.csv", "text,label\nä,x\n".encode("utf-16"), TEXTS, {"encoding": "utf-16"}),
    "a very long text": ("a.jsonl", line(text="long " * 100_000, label="x"), TEXTS, {}),
    "a text of spaces inside": ("a.jsonl", line(text=" a \t fine ", label="x"), TEXTS, {}),
    "CoNLL, CRLF and comments": ("a.conll", "-DOCSTART- O\r\n\r\nEU B-ORG\r\nis O\r\n", WORDS, {}),
    "CoNLL, one word": ("a.conll", "EU B-ORG", WORDS, {}),
    "CoNLL, byte-order mark": ("a.conll", b"\xef\xbb\xbfEU B-ORG\n\n\n\nx O\n", WORDS, {}),
    "SQuAD": ("a.json", json.dumps(SQUAD), QUESTIONS, {}),
    "SQuAD, indented": ("a.json", json.dumps(SQUAD, indent=1), QUESTIONS, {}),
    "questions as rows": ("a.jsonl", line(**ASKED), QUESTIONS, {}),
    "a question without an answer": (
        "a.jsonl", line(**ASKED) + line(**{**ASKED, "answers": {"text": [], "answer_start": []}}), QUESTIONS, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_file_is_not_refused(contract, name):
    file, content, columns, options = CLEAN[name]

    assert len(read(file, content, columns, duplicates="off", **options)) >= 1
    contract("I3", clean_corpora=1, refused=0)


def parquet(name: str) -> str:
    pyarrow.parquet.write_table(pa.table({"text": ["a fine film", "dull"], "label": [0, 1]}), name)
    return name


def arrow(name: str) -> str:
    with pa.ipc.new_file(name, pa.schema([("text", pa.string()), ("label", pa.int64())])) as file:
        file.write_table(pa.table({"text": ["a fine film", "dull"], "label": [0, 1]}))
    return name


def saved(name: str) -> str:
    Dataset.from_dict({"text": ["a fine film", "dull"], "label": ["x", "y"]}).save_to_disk(name)
    return name


def several_splits(name: str) -> str:
    DatasetDict({"train": Dataset.from_dict({"text": ["fine"], "label": ["x"]})}).save_to_disk(name)
    return name


def pictures(name: str) -> str:
    for number, label in enumerate(("cat", "dog")):
        (Path(name) / label).mkdir(parents=True)
        Image.new("L", (8, 8), 90 * number).save(Path(name) / label / "one.png")
    return name


def arrays(name: str) -> str:
    return str(tiny.write_images(Path(name), 4, 1))


def text(content: str) -> Callable[[str], str]:
    def write(name: str) -> str:
        Path(name).write_bytes(content.encode())
        return name

    return write


IMAGES = Columns((), "label", image="image")
PAIRS = Columns(("source",), "target", target="target")
MESSAGES = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "Warm."}]
OTHERS: dict[str, tuple[str, Callable[[str], str], Columns, dict[str, Any]]] = {
    "Parquet": ("a.parquet", parquet, TEXTS, {}),
    "Arrow": ("a.arrow", arrow, TEXTS, {}),
    "a saved data set": ("saved", saved, TEXTS, {}),
    "a saved data set of splits": ("splits", several_splits, TEXTS, {}),
    "plain text, a line a row": ("a.txt", text("one\n\ntwo\r\n"), Columns(("text",), None), {"sample_by": "line"}),
    "plain text, a document": ("a.txt", text("one\n\ntwo"), Columns(("text",), None), {}),
    "a folder of images": ("images", pictures, IMAGES, {"image": ImageOptions(size=8)}),
    "arrays of images": ("a.npz", arrays, IMAGES, {"image": ImageOptions(size=8)}),
    "pairs of texts": ("a.tsv", text("source\ttarget\nein Film\ta film\n"), PAIRS, {}),
    "messages": ("a.jsonl", text(line(messages=MESSAGES)), Chat(template="plain").columns(), {}),
    "a prompt and a completion": (
        "a.jsonl", text(line(prompt="How?", completion="Warm.")), Chat(template="plain").columns(), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_clean_corpus_of_every_other_kind_is_not_refused(contract, name):
    place, write, columns, options = OTHERS[name]
    given = DataOptions(train=write(place), duplicates="off", **options)

    assert len(load_splits(given, columns, ("train",)).rows["train"]) >= 1
    contract("I3", clean_corpora=1, refused=0)


def mistakes(name: str, content: str, columns: Columns) -> str:
    with pytest.raises(UserError) as error:
        read(name, content, columns, duplicates="off")
    said = str(error.value)
    assert "\n" not in said
    return said


WRONG: dict[str, tuple[str, str, str, Columns]] = {  # file, a good row, a bad row, columns
    "JSONL": ("a.jsonl", ROW, line(text=5, label="x"), TEXTS),
    "JSONL, no JSON": ("a.jsonl", ROW, "{]\n", TEXTS),
    "CSV": ("a.csv", "a fine film,x\n", "dull\n", TEXTS),
    "CSV, empty": ("a.csv", "a fine film,x\n", ",x\n", TEXTS),
    "CoNLL": ("a.conll", "EU B-ORG\n", "EU\n", WORDS),
    "SQuAD, as rows": ("a.jsonl", line(**ASKED), line(**{**ASKED, "answers": {"text": ["cold"], "answer_start": [8]}}),
                       QUESTIONS),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_up_to_twenty_mistakes_are_named_with_their_lines(contract, name):
    file, good, bad, columns = WRONG[name]
    first = 2 + (file == "a.csv")

    said = mistakes(file, ("text,label\n" if file == "a.csv" else "") + (good + bad) * 30, columns)

    assert said.startswith(f"{file}:{first}: ")
    assert "and 19 more" in said
    assert f"{file}:{first + 38}, where reading stopped" in said
    contract("I1", mistakes_named=20)


def test_twenty_questions_of_squads_own_file_are_named():
    asked = [{"id": f"q{n}", "question": "How?", "answers": [{"text": "cold", "answer_start": 8}]} for n in range(30)]
    wrong = {"data": [{"paragraphs": [{"context": "it felt warm", "qas": asked}]}]}

    said = mistakes("a.json", json.dumps(wrong), QUESTIONS)

    assert said.startswith("a.json#q0: ")
    assert "and 19 more" in said


def seconds_to_refuse(name: str, content: str, columns: Columns, tries: int = 1) -> tuple[float, str]:
    """Return what reading a file would take an idle core, the least of some tries, and what is said of it."""
    mistakes(name, content[:2000] + "{]", columns)  # importing is no reading, and writing neither
    Path(name).write_text(content)
    taken = []
    for _ in range(tries):
        before, started = slowness(), time.process_time()
        with pytest.raises(UserError) as error:
            load_splits(DataOptions(train=name, duplicates="off"), columns, ("train",))
        seconds = time.process_time() - started
        taken.append(seconds / max(before, slowness()))
    return min(taken), str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_on_the_millionth_line_has_its_line_and_soon(contract, name):
    file, good, bad, columns = WRONG[name]
    header = "text,label\n" if file == "a.csv" else ""
    content = header + good * (MILLION - 1 - bool(header)) + bad

    taken, said = seconds_to_refuse(file, content, columns)

    assert said.startswith(f"{file}:{MILLION}: ")
    assert taken < SECONDS_A_MILLION + SECONDS_A_GB * len(content) / 1e9
    contract("I1", millionth_lines=1, seconds=taken)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["JSONL", "CSV", "CSV, quoted"])
def test_long_texts_are_read_within_ten_seconds_a_gigabyte(contract, name):
    rows, text = 200_000, "a fine film of 1895 " * 50
    good = {"JSONL": line(text=text, label="x"), "CSV": f"{text},x\n", "CSV, quoted": f'"{text}, dull",x\n'}[name]
    header, bad = ("", "{]") if name == "JSONL" else ("text,label\n", '"')
    content = header + good * rows + bad

    taken, _ = seconds_to_refuse("a.jsonl" if name == "JSONL" else "a.csv", content, TEXTS, tries=3)
    gigabytes = len(content) / 1e9

    assert taken / gigabytes < SECONDS_A_GB
    contract("I1", seconds_a_gigabyte=taken / gigabytes)
