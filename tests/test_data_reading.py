"""Every format gives the same rows, and every row knows where it stands in its file."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from finetune.data import DataOptions, Source, load_splits, read_rows
from finetune.errors import EnvironmentFailed, UserError
from finetune.task import Columns

COLUMNS = Columns(("text",), "label")
ROWS = [
    {"id": 1, "text": 'He said "no",\nthen left.', "label": "negative"},
    {"id": 2, "text": "Grüße aus Köln – 你好 🙂 \u2028 one line", "label": "positive"},
    {"id": 3, "text": "plain", "label": "positive"},
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(path: str, rows: list[dict], delimiter: str = ",", end: str = "\r\n", mark: str = "") -> str:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        stream.write(mark)
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter, lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)
    return path


def lines_of(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def put(path: str, content: str | bytes) -> str:
    Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def arrow_stream(path: str) -> str:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def parquet(path: str) -> str:
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def feather(path: str) -> str:
    pa.feather.write_feather(pa.Table.from_pylist(ROWS), path)
    return path


def saved(path: str) -> str:
    datasets.Dataset.from_list(ROWS).save_to_disk(path)
    return path


def saved_splits(path: str) -> str:
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(path)
    return path


def train(source: object, task: Columns = COLUMNS, **options: object) -> datasets.Dataset:
    return load_splits(DataOptions(train=source, **options), task, ("train",)).rows["train"]


FORMATS = {
    "csv": (lambda: write_csv("a.csv", ROWS), [2, 4, 5]),
    "csv with a mark and \\n": (lambda: write_csv("a.csv", ROWS, end="\n", mark="\ufeff"), [2, 4, 5]),
    "csv after blank lines": (lambda: write_csv("a.csv", ROWS, mark="\ufeff\r\n \r\n"), [4, 6, 7]),
    "tsv after blank lines": (lambda: write_csv("a.tsv", ROWS, delimiter="\t", mark="\n\n"), [4, 6, 7]),
    "csv with semicolons": (lambda: write_csv("a.csv", ROWS, delimiter=";"), [2, 4, 5]),
    "tsv": (lambda: write_csv("a.tsv", ROWS, delimiter="\t"), [2, 4, 5]),
    "jsonl": (lambda: put("a.jsonl", lines_of(ROWS)), [1, 2, 3]),
    "jsonl with a mark and \\r\\n": (
        lambda: put("a.jsonl", "\ufeff" + lines_of(ROWS).replace("\n", "\r\n")),
        [1, 2, 3],
    ),
    "json lines called json": (lambda: put("a.json", lines_of(ROWS)), [1, 2, 3]),
    "json array": (lambda: put("a.json", json.dumps(ROWS, indent=1, ensure_ascii=False)), [2, 7, 12]),
    "json array in one line": (lambda: put("a.json", json.dumps(ROWS)), [1, 1, 1]),
    "gz": (lambda: put("a.jsonl.gz", gzip.compress(lines_of(ROWS).encode())), [1, 2, 3]),
    "parquet": (lambda: parquet("a.parquet"), [1, 2, 3]),
    "arrow file": (lambda: feather("a.feather"), [1, 2, 3]),
    "arrow stream": (lambda: arrow_stream("a.arrow"), [1, 2, 3]),
    "saved data set": (lambda: saved("saved"), [1, 2, 3]),
    "saved splits": (lambda: saved_splits("splits"), [1, 2, 3]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_rows_and_their_lines(name):
    write, lines = FORMATS[name]
    path = write()

    rows = train(path)

    assert rows["text"] == [row["text"] for row in ROWS]
    assert rows["label"] == [row["label"] for row in ROWS]
    place = "splits/train" if name == "saved splits" else path
    assert rows["row_id"] == [f"{place}:{line}" for line in lines]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_as_csv_or_json_is_read_back_with_its_line(seed):
    rng = random.Random(seed)
    alphabet = "ab,\"\n'\t;| é中🙂\u2028\x85\\"
    texts = ["x" + "".join(rng.choices(alphabet, k=rng.randint(0, 12))) for _ in range(rng.randint(1, 30))]
    rows = [{"text": text, "label": rng.choice("pq")} for text in texts]
    end = rng.choice(["\n", "\r\n"])
    write_csv("a.csv", rows, end=end)
    put("a.json", json.dumps(rows, indent=rng.choice([None, 1, 4]), ensure_ascii=rng.random() < 0.5))

    from_csv, from_json = train("a.csv"), train("a.json")

    assert from_csv["text"] == from_json["text"] == texts
    lines = Path("a.csv").read_bytes().decode().split("\n")  # no cell holds \r: an editor's lines
    for row_id, text in zip(from_csv["row_id"], texts, strict=True):
        begins = lines[int(row_id.split(":")[1]) - 1].rstrip("\r").lstrip('"')
        assert begins.startswith(text.split("\n")[0].replace('"', '""')[:3].rstrip('"'))


def test_json_array_elements_stand_where_an_editor_shows_them():
    put("a.json", '\n\n[\n\n{"text": "one\\n", "label": "x"}\n,\n\n  {"text": "two", "label": "y"}]')

    assert train("a.json")["row_id"] == ["a.json:5", "a.json:8"]


def test_csv_cells_are_numbers_only_when_all_of_them_are():
    numbers = [{"text": str(at), "label": at} for at in range(3)]
    words = [{"text": "a", "label": "1"}, {"text": "b", "label": "3a"}]
    write_csv("whole.csv", numbers)
    write_csv("fractions.csv", [{"text": "a", "label": "1"}, {"text": "b", "label": "2.5"}])
    write_csv("words.csv", words)
    write_csv("padded.csv", [{"text": "a", "label": "007"}, {"text": "b", "label": "1"}])

    assert train("whole.csv")["label"] == [0, 1, 2]
    assert train("fractions.csv")["label"] == [1.0, 2.5]
    assert train("words.csv")["label"] == ["1", "3a"]
    assert train("padded.csv")["label"] == [7.0, 1.0]


def test_csv_labels_follow_the_typed_files_beside_them():
    write_csv("train.csv", [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}])
    put("test.jsonl", lines_of([{"text": "c", "label": "1"}]))

    rows = load_splits(DataOptions(train="train.csv", test="test.jsonl"), COLUMNS).rows

    assert rows["train"]["label"] == ["1", "2"]
    assert rows["test"]["label"] == ["1"]


def test_class_labels_keep_their_order_and_names():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    datasets.Dataset.from_dict({"text": ["p", "q"], "label": [1, 0]}, features).save_to_disk("saved")

    rows = train("saved")

    assert rows.features["label"].names == ["z", "a"]
    assert rows["label"] == [1, 0]


def test_a_class_label_of_minus_one_is_no_label():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    datasets.Dataset.from_dict({"text": ["p", "q"], "label": [1, -1]}, features).to_parquet("a.parquet")

    with pytest.raises(UserError, match=r"^a\.parquet:2: .*null"):
        train("a.parquet")


def test_columns_are_mapped_for_all_sources_and_for_one():
    write_csv("a.csv", [{"review": "a", "stars": "x"}])
    write_csv("b.csv", [{"body": "b", "stars": "y"}])
    sources = [Source("a.csv"), Source("b.csv", columns={"text": "body"})]

    rows = train(sources, columns={"text": "review", "label": "stars"})

    assert rows["text"] == ["a", "b"]
    assert rows.column_names == ["text", "label", "row_id"]


def test_a_glob_is_read_in_the_order_of_names():
    for name in ("b", "a"):
        write_csv(f"{name}.csv", [{"text": name, "label": name}])

    assert train("[ab].csv")["row_id"] == ["a.csv:2", "b.csv:2"]


@pytest.mark.parametrize(
    ("sample_by", "expected"),
    [
        ("document", [("t.txt:1", "one\ntwo\n\n\nthree \n")]),
        ("paragraph", [("t.txt:1", "one\ntwo"), ("t.txt:5", "three ")]),
        ("line", [("t.txt:1", "one"), ("t.txt:2", "two"), ("t.txt:5", "three ")]),
    ],
)
def test_plain_text_is_cut_as_asked(sample_by, expected):
    put("t.txt", "one\r\ntwo\r\n\r\n\r\nthree \r\n")

    rows = train("t.txt", Columns(("content",)), sample_by=sample_by)

    assert list(zip(rows["row_id"], rows["content"], strict=True)) == expected


def test_a_tsv_whose_texts_begin_with_quotes_is_read_as_it_is():
    put("a.tsv", 'text\tlabel\n"open quote\tx\n"so" he said\ty\n')

    assert train("a.tsv")["text"] == ['"open quote', '"so" he said']


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "gb18030"])
def test_other_encodings_are_read_when_named_and_named_when_not(encoding):
    text = "电影很好看，我们都喜欢" if encoding == "gb18030" else "café olé"
    put("a.csv", f"text,label\n{text},x\nb,y\n".encode(encoding))

    assert train("a.csv", encoding=encoding)["text"][0] == text
    with pytest.raises(UserError, match=rf"^a\.csv:[12]: .*data\.encoding: {encoding}"):
        train("a.csv")


def test_labels_may_be_missing_where_rows_are_predicted():
    put("some.jsonl", lines_of([{"text": "a", "label": "x"}, {"text": "b"}]))
    write_csv("none.csv", [{"text": "a"}])
    write_csv("all.csv", [{"text": "a", "label": "x"}])

    assert read_rows("some.jsonl", DataOptions(), COLUMNS).column_names == ["text", "row_id"]
    assert read_rows("none.csv", DataOptions(), COLUMNS).column_names == ["text", "row_id"]
    assert read_rows("all.csv", DataOptions(), COLUMNS)["label"] == ["x"]


def test_rows_beyond_one_chunk_keep_their_lines_and_types():
    rows = [{"text": f"t{at}", "label": at if at < 15_000 else at + 0.5} for at in range(20_001)]
    put("a.jsonl", lines_of(rows))

    read = train("a.jsonl", duplicates="off")

    assert read["label"] == [float(row["label"]) for row in rows]
    assert read["row_id"][-1] == "a.jsonl:20001"


def test_a_hub_data_set_is_loaded_at_its_revision_and_no_code_of_it_is_run(monkeypatch):
    asked = {}

    def load_dataset(path, **options):
        asked.update(options, path=path)
        return datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    rows = train(Source("owner/name", revision="abc123", name="config"))

    assert asked == {"path": "owner/name", "name": "config", "revision": "abc123", "streaming": False}
    assert rows["row_id"][0] == "owner/name/config/train:1"
    with pytest.raises(UserError, match=r'has no split "trian"; its splits: train\. Did you mean train'):
        train(Source("owner/name", split="trian"))


def test_a_hub_out_of_reach_is_the_environments_fault(monkeypatch):
    def load_dataset(path, **options):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    with pytest.raises(EnvironmentFailed, match="owner/name: no such file, and the Hub is out of reach"):
        train("owner/name")
