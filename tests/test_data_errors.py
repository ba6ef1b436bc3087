"""Whatever is wrong with a file is said in one line that names the file, the line and the way out."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from finetune.data import DataOptions, Holdout, Source, load_splits
from finetune.errors import UserError
from finetune.task import Columns

COLUMNS = Columns(("text",), "label")
GOOD = "text,label\nfine,x\nwell,y\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("reviews.csv").write_text(GOOD)
    return tmp_path


def mistake(task: Columns = COLUMNS, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        load_splits(DataOptions(**options), task, [name for name in ("train", "test") if name in options])
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    return message


BROKEN = [  # file, its content, how the line begins, what it also says
    ("a.csv", "text,label\na,x\nb\n", "a.csv:3: 1 cell where the header has 2", "a cell is missing"),
    ("a.csv", "text,label\na,b,x\n", "a.csv:2: 3 cells where the header has 2", "quotation marks"),
    ("a.csv", 'text,label\n"a\nb",x\n"open,y\nc,z\n', "a.csv:4: a quotation mark opens here and never closes", ""),
    ("a.csv", 'text,label\na,x\n"b" c,x\n', "a.csv:3: text follows a closing quotation mark", ""),
    ("a.csv", "text,label\na,x\n,y\n", 'a.csv:3: column "text" is empty', "data.empty_texts: drop"),
    ("a.csv", 'text,label\na,x\n"\n \t",y\n', 'a.csv:3: column "text" is empty', ""),
    ("a.csv", "text,label\na,x\nb,\n", 'a.csv:3: column "label" is empty', ""),
    ("a.csv", "text,label\na,x\nb,  \n", 'a.csv:3: column "label" is empty', ""),
    ("a.csv", "text,lable\na,x\n", 'a.csv:1: has no column "label"; its columns: "text", "lable"', "mean lable?"),
    ("a.csv", "one,two\na,x\n", 'a.csv:1: has no column "text", "label"', "data.columns: {text: NAME}"),
    ("a.csv", "text,text,label\na,b,x\n", 'a.csv:1: the header names "text" more than once', ""),
    ("a.csv", "", "a.csv: is empty", ""),
    ("a.csv", "\n\n", "a.csv: is empty", ""),
    ("a.csv", "text,label\n", "a.csv:1: has a header and no rows", ""),
    ("a.csv", "\n\ntext,label\nx,1\n,2\n", 'a.csv:5: column "text" is empty', ""),
    ("a.csv", "\r\n \r\ntext,label\r\nx,1\r\nb\r\n", "a.csv:5: 1 cell where the header has 2", ""),
    ("a.csv", '\ntext,label\nx,1\n"b,2\n', "a.csv:4: a quotation mark opens here", ""),
    ("a.csv", "\n\ntext,lable\na,x\n", 'a.csv:3: has no column "label"', "mean lable?"),
    ("a.csv", "\n\ntext,text,label\na,b,x\n", 'a.csv:3: the header names "text" more than once', ""),
    ("a.csv", '\n\n"text"x,label\na,b\n', "a.csv:3: the header is malformed", ""),
    ("a.csv", "\n\ntext,label\n\n", "a.csv:3: has a header and no rows", ""),
    ("a.tsv", "\n\ntext\tlabel\na\tx\n\ty\n", 'a.tsv:5: column "text" is empty', ""),
    ("a.csv", b"text,label\nfine,x\ncaf\xe9,y\n", "a.csv:3: byte 0xe9 at position 4 is not utf-8", "encoding: cp1252"),
    ("a.csv", "text,label\n" + "a,1\n" * 30 + "b,nan\n", 'a.csv:32: column "label" is text ("nan")', "numbers"),
    ("a.csv", "text,label\n" + "a,1\n" * 30 + "b,five\n", 'a.csv:32: column "label" is text ("five")', "numbers"),
    ("a.tsv", b"text\tlabel\na\tx\nb\xe9\tx\n", "a.tsv:3: byte 0xe9 at position 2 is not utf-8; near", "as UTF-8"),
    ("a.tsv", "text\tlabel\na\tx\nb\n", "a.tsv:3: 1 cell", ""),
    ("a.csv.gz", b"text", "a.csv.gz: is not a whole .gz file", ""),
    ("a.csv.gz", gzip.compress(GOOD.encode() * 99, mtime=0)[:-9], "a.csv.gz: is not a whole .gz file", ""),
    ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b" "label"}\n', "a.jsonl:2: is not JSON: Expecting ','", '"b"'),
    ("a.jsonl", "{'text': 'a', 'label': 'x'}\n", "a.jsonl:1: is not JSON", "double quotation marks"),
    ("a.jsonl", '{"text": "a", "label": "x"}\n\n["b", "y"]\n', "a.jsonl:3: is no object", ""),
    ("a.jsonl", '{"txt": "a", "label": "x"}\n', 'a.jsonl:1: has no column "text"; its columns: "txt"', "mean txt?"),
    ("a.jsonl", '{"text": null, "label": "x"}\n', 'a.jsonl:1: column "text" is null', ""),
    ("a.jsonl", '{"text": 5, "label": "x"}\n', 'a.jsonl:1: column "text" is a number (5)', ""),
    ("a.jsonl", '{"text": "a", "label": null}\n', 'a.jsonl:1: column "label" is null', ""),
    ("a.jsonl", '{"text": "a", "label": NaN}\n', 'a.jsonl:1: column "label" is nan', ""),
    ("a.jsonl", '{"text": "a", "label": {"b": 1}}\n', 'a.jsonl:1: column "label" is a dict', ""),
    ("a.jsonl", f'{{"text": "a", "label": {2**70}}}\n', 'a.jsonl:1: column "label" is 1180', "64 bits"),
    ("a.jsonl", '{"text": "a\\ud800", "label": "x"}\n', 'a.jsonl:1: column "text" holds half of a surrogate', ""),
    ("a.jsonl", '{"text": "a", "label": ["x"]}\n{"text": "a", "label": [1]}\n', 'a.jsonl:2: column "label" is [1]', ""),
    ("a.jsonl", '{"text": "a", "label": ["\\udc00"]}\n', 'a.jsonl:1: column "label" is [\'\\udc00', "surrogate"),
    ("a.jsonl", f'{{"text": "a", "label": [{10**23}]}}\n', 'a.jsonl:1: column "label" is [1000', "64 bits"),
    ("a.jsonl", f'{{"text": "a", "label": [1, {-2**63 - 1}]}}\n', 'a.jsonl:1: column "label" is [1, -9', "64 bits"),
    ("a.jsonl", '{"text": "a", "label": 1}\n' * 2 + '{"text": "b", "label": "1"}\n', "a.jsonl:3: ", "a number"),
    ("a.jsonl", '{"text": "a", "label": "x"}\n' + "[" * 99_999 + "\n", "a.jsonl:2: is nested too deeply", ""),
    ("a.jsonl", f'{{"text": "a", "label": {"9" * 5000}}}\n', "a.jsonl:1: is not JSON that can be read", ""),
    ("a.jsonl", '{\n"text": "a"\n}\n', 'a.jsonl:1: is one object with the keys "text"', "one object a line"),
    ("a.jsonl", "\n \n", "a.jsonl: is empty", ""),
    ("a.json", "[]", "a.json:1: holds no rows", ""),
    ("a.json", '[\n{"text": "a", "label": "x"},\n{"text": "b",}\n]', "a.json:3: is not JSON", ""),
    ("a.json", '[\n{"text": "a", "label": "x"}\n{}]', "a.json:3: a comma or ] should stand before", ""),
    ("a.json", '[\n{"text": "a", "label": "x"}\n', "a.json:3: the file ends and the array is open", ""),
    ("a.json", '[\n{"text": "a", "label": "x"}]\n[', "a.json:2: text follows the array", ""),
    ("a.json", b'\xff\xfe[\x00]\x00', "a.json:1: is not utf-8 but looks like utf-16", "data.encoding: utf-16"),
    ("a.parquet", b"PAR1 and no more", "a.parquet: is no readable Parquet file", ""),
    ("a.arrow", b"ARROW1", "a.arrow: is no readable Arrow file", ""),
    ("a.txt", "only text", 'a.txt: plain text has no column "label"', "use CSV or JSONL"),
    ("a.xlsx", b"PK", "data.train: a.xlsx: .xlsx is no known format", "Save the sheet as CSV"),
    ("a.jsnl", "{}", "data.train: a.jsnl: .jsnl is no known format", "mean .jsonl?"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "start", "also"), BROKEN)
def test_a_broken_file_is_one_line_with_its_place(name, content, start, also):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())

    message = mistake(train=name)

    assert message.startswith(start)
    assert also in message


WRONG = [
    ({"train": "reveiws.csv"}, "data.train: reveiws.csv: no such file. Did you mean reviews.csv?"),
    ({"train": "nowhere/a.csv"}, "data.train: nowhere/a.csv: no such file. There is no folder nowhere"),
    ({"train": "*.parquet"}, "data.train: *.parquet: no file matches"),
    ({"train": ""}, "data.train: the path is empty"),
    ({"train": []}, "data.train is an empty list"),
    ({"train": "."}, "data.train: . is a folder that save_to_disk did not write"),
    ({"train": ["reviews.csv", "*.csv"]}, "data.train: reviews.csv is named twice"),
    ({"train": "reviews.csv", "columns": {"lable": "x"}}, "data.columns.lable: the task reads no such column"),
    ({"train": [Source("reviews.csv", weight=1), Source("b.csv")]}, "data.train: reviews.csv has a weight and b.csv"),
    ({"train": "reviews.csv", "test": Source("reviews.csv", weight=1)}, "data.test: reviews.csv has a weight"),
    ({"train": "reviews.csv", "encoding": "utf8x"}, "data.encoding is utf8x, which is no encoding"),
    ({"train": "reviews.csv", "max_train_rows": 0}, "data.max_train_rows is 0; it must be at least 1"),
    ({"train": "reviews.csv", "near_duplicates": 9}, "data.near_duplicates is 9; it must lie between 0.3 and 1"),
    ({"train": "reviews.csv", "streaming": True, "duplicates": "drop"}, "data.duplicates: drop needs every row"),
    ({"test": "reviews.csv", "train": None}, "data.train is missing"),
]


@pytest.mark.parametrize(("options", "start"), WRONG)
def test_a_wrong_option_is_one_line_that_names_it(options, start):
    assert mistake(**options).startswith(start)


def test_a_share_outside_0_and_1_or_a_weight_of_0_is_refused():
    for make in (lambda: Holdout(1.5), lambda: Holdout(0.0), lambda: Source("a", weight=0.0)):
        with pytest.raises(UserError, match="data"):
            make()


def test_a_streamed_train_cannot_be_split():
    with pytest.raises(UserError, match="name a validation file"):
        DataOptions(train="a.csv", validation=Holdout(0.1), streaming=True)


def test_mistakes_of_all_files_are_gathered_in_the_order_of_the_lines():
    Path("a.csv").write_text("text,label\n,x\nb\nc,\nd,x\n")
    Path("b.jsonl").write_text('{"text": "e", "label": "x"}\n{"text": 1, "label": "x"}\n')

    message = mistake(train="a.csv", test="b.jsonl")

    assert message.startswith('a.csv:2: column "text" is empty')
    assert message.endswith("; and 3 more (a.csv:3, a.csv:4, b.jsonl:2)")


def test_reading_stops_at_twenty_mistakes():
    Path("a.csv").write_text("text,label\n" + ",x\n" * 50)

    message = mistake(train="a.csv")

    assert "; and 19 more (a.csv:3, " in message
    assert message.endswith("a.csv:21, where reading stopped)")


def test_a_mistake_far_down_has_its_line():
    Path("a.jsonl").write_text('{"text": "a", "label": "x"}\n' * 123_455 + "{]\n")

    assert mistake(train="a.jsonl", duplicates="off").startswith("a.jsonl:123456: is not JSON")


def test_parquet_texts_and_labels_are_checked_by_row():
    table = pa.table({"text": ["a", None, "  "], "label": ["x", "y", None]})
    pa.parquet.write_table(table, "a.parquet")

    message = mistake(train="a.parquet")

    assert message.startswith('a.parquet:2: column "text" is null')
    assert message.endswith("and 2 more (a.parquet:3)")


def test_empty_texts_are_dropped_on_request_and_counted():
    Path("a.csv").write_text("text,label\n,x\nb,x\n  ,y\nc,y\n")

    splits = load_splits(DataOptions(train="a.csv", empty_texts="drop"), COLUMNS, ("train",))

    assert splits.rows["train"]["row_id"] == ["a.csv:3", "a.csv:5"]
    assert {"split": "train", "step": "empty texts dropped", "before": 4, "after": 2} in splits.ledger


def test_labels_of_another_kind_in_another_split_are_refused():
    Path("a.jsonl").write_text('{"text": "a", "label": 1}\n')
    Path("b.jsonl").write_text('{"text": "b", "label": true}\n')

    assert mistake(train="a.jsonl", test="b.jsonl").startswith('b.jsonl:1: column "label" is true or false (True)')


def test_labels_that_differ_by_case_or_spaces_are_said():
    Path("a.csv").write_text("text,label\na,Yes\nb,yes\nc,no\n")

    notes = load_splits(DataOptions(train="a.csv"), COLUMNS, ("train",)).notes

    assert notes == [
        'labels "Yes" (1 rows) and "yes" (1 rows) differ in case or spaces only and are taken as two classes'
    ]


@pytest.mark.parametrize(
    "content", ["text,label\na,x\n", "text,label\r\na,x\r\n\r\n", "\ufefftext,label\na,x", 'text,"label"\n"a",x']
)
def test_clean_files_are_never_refused(content):
    Path("a.csv").write_bytes(content.encode())

    assert load_splits(DataOptions(train="a.csv"), COLUMNS, ("train",)).rows["train"]["text"] == ["a"]
