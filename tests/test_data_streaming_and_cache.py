"""A stream gives the rows that a table gives; a cache gives what was built, and only for the same key."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import datasets
import pytest
from datasets.distributed import split_dataset_by_node

from finetune.data import DataOptions, Source, cached, load_splits
from finetune.errors import UserError
from finetune.task import Columns, Encoded

COLUMNS = Columns(("text",), "label")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: str, count: int, word: str = "text", label: object = "x") -> str:
    rows = ({"text": f"{word} {at}", "label": label} for at in range(count))
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def stream(**options: object) -> datasets.IterableDataset:
    return load_splits(DataOptions(streaming=True, **options), COLUMNS).stream


def test_a_stream_gives_every_row_once_shuffled_by_seed():
    put("a.jsonl", 500)
    put("b.jsonl", 300, "other")
    whole = load_splits(DataOptions(train=["a.jsonl", "b.jsonl"]), COLUMNS).rows["train"]

    ids = [row["row_id"] for row in stream(train=["a.jsonl", "b.jsonl"], shuffle_buffer=100)]

    assert sorted(ids) == sorted(whole["row_id"])
    assert ids != whole["row_id"][:]
    assert ids == [row["row_id"] for row in stream(train=["a.jsonl", "b.jsonl"], shuffle_buffer=100)]
    assert ids != [row["row_id"] for row in stream(train=["a.jsonl", "b.jsonl"], shuffle_buffer=100, seed=1)]


def test_processes_share_a_stream_without_overlap():
    for name in "abc":
        put(f"{name}.jsonl", 50, name)

    for source in ("*.jsonl", "a.jsonl"):
        whole = [row["row_id"] for row in stream(train=source)]
        parts = [[row["row_id"] for row in split_dataset_by_node(stream(train=source), at, 2)] for at in range(2)]
        assert sorted(parts[0] + parts[1]) == sorted(whole)


def test_a_mixed_stream_follows_its_weights_and_a_limit_ends_it():
    put("a.jsonl", 2000, "a")
    put("b.jsonl", 2000, "b")
    sources = [Source("a.jsonl", weight=1), Source("b.jsonl", weight=3)]

    words = [row["text"][0] for row in stream(train=sources, max_train_rows=1000)]

    assert len(words) == 1000
    assert words.count("b") == pytest.approx(750, abs=50)


def test_a_streamed_row_that_is_wrong_stops_with_its_line():
    put("a.jsonl", 12_000)
    with open("a.jsonl", "a") as file:
        file.write('{"text": "", "label": "x"}\n')

    opened = stream(train="a.jsonl", shuffle_buffer=10)

    assert len(list(islice(opened, 100))) == 100
    with pytest.raises(UserError, match=r'^a\.jsonl:12001: column "text" is empty'):
        list(opened)


def test_a_streamed_row_of_the_test_split_stops_the_run_and_is_announced():
    put("train.jsonl", 50)
    Path("test.jsonl").write_text('{"text": "TEXT  7", "label": "x"}\n')

    splits = load_splits(DataOptions(train="train.jsonl", test="test.jsonl", streaming=True), COLUMNS)

    assert "the first that equals one of validation or test stops the run there" in splits.notes[0]
    with pytest.raises(UserError, match=r"^train\.jsonl:8: the text is that of test\.jsonl:1"):
        list(splits.stream)
    assert len(list(stream(train="train.jsonl", test="test.jsonl", leakage="warn"))) == 50


def test_labels_of_a_streamed_csv_keep_the_kind_of_its_first_rows():
    lines = ["text,label", *(f"t {at},{at % 3}" for at in range(11_000))]
    Path("a.csv").write_text("\n".join(lines))
    assert {row["label"] for row in stream(train="a.csv")} == {0, 1, 2}

    Path("a.csv").write_text("\n".join([*lines, "late,five"]))
    with pytest.raises(UserError, match=r'^a\.csv:11002: column "label" is "five" where the first rows have int64'):
        list(stream(train="a.csv"))


def test_a_hub_data_set_is_streamed(monkeypatch):
    def load_dataset(path, streaming, **options):
        assert streaming
        rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}).cast_column(
            "label", datasets.ClassLabel(names=["no", "yes"])
        )
        return datasets.IterableDatasetDict({"train": rows.to_iterable_dataset()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    rows = sorted((row["text"], row["label"], row["row_id"]) for row in stream(train="owner/name"))

    assert rows == [("a", "yes", "owner/name/train:1"), ("b", "no", "owner/name/train:2")]


def encoded(values: list[int]) -> Encoded:
    return Encoded(datasets.Dataset.from_dict({"input_ids": [[value] for value in values]}), {"rows": len(values)})


def test_inputs_come_from_the_cache_only_for_the_same_key(tmp_path):
    cache, built = tmp_path / "cache", []

    def build() -> Encoded:
        built.append(1)
        return encoded([1, 2, 3])

    first = cached(build, {"a": 1, "b": [2]}, cache)
    second = cached(build, {"b": [2], "a": 1}, cache)
    cached(build, {"a": 1, "b": [3]}, cache)
    cached(build, {"a": 1, "b": [2]}, None)

    assert len(built) == 3
    assert first.inputs[:] == second.inputs[:] == {"input_ids": [[1], [2], [3]]}
    assert first.facts == second.facts == {"rows": 3}
    assert not [path for path in cache.iterdir() if path.name.startswith(".stage")]


def test_a_damaged_entry_is_built_again(tmp_path):
    key = {"a": 1}
    cached(lambda: encoded([1, 2, 3]), key, tmp_path)
    entry = next(path for path in tmp_path.iterdir() if len(path.name) == 64)
    files = [path for path in entry.rglob("*") if path.is_file()]

    assert len(files) >= 3
    for file in files:
        file.write_bytes(file.read_bytes()[:-5])
        assert cached(lambda: encoded([1, 2, 3]), key, tmp_path).inputs["input_ids"][:] == [[1], [2], [3]]
    assert cached(lambda: encoded([0]), key, tmp_path).facts == {"rows": 3}


def test_an_entry_of_another_key_in_the_same_folder_is_not_taken(tmp_path):
    key = {"a": 1}
    cached(lambda: encoded([1]), key, tmp_path)
    record = next(tmp_path.glob("*/cached.json"))
    record.write_text(record.read_text().replace('\\"a\\": 1', '\\"a\\": 2'))

    assert cached(lambda: encoded([5, 6]), key, tmp_path).facts == {"rows": 2}


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail() -> Encoded:
        raise UserError("no")

    with pytest.raises(UserError):
        cached(fail, {"a": 1}, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
