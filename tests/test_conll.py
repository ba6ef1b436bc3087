"""CoNLL files and their kin: the same rows as lists in JSON, and every row knows the line of its first word."""

from __future__ import annotations

import gzip
import json

import datasets
import pytest

from finetune.data import DataOptions, load_splits, read_rows
from finetune.errors import UserError
from finetune.task import Columns

COLUMNS = Columns(("tokens",), "ner_tags", words="tokens")
ROWS = [(["EU", "rejects", "German"], ["B-ORG", "O", "B-MISC"]), (["Peter", "Blackburn"], ["B-PER", "I-PER"])]
SPACED = (
    "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\nGerman JJ B-NP B-MISC\n\n\nPeter NNP B-NP B-PER\n"
)
SPACED += "Blackburn NNP I-NP I-PER\n"
UNIVERSAL = """# sent_id = 1
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tya\tya\tADV\t_\t_\t_\t_\t_\t_

1\tmar\tmar\tNOUN\t_\t_\t0\troot\t_\t_
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(name: str, content: str | bytes, **options) -> list[tuple[list[str], list[str]]]:
    from pathlib import Path

    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    data = load_splits(DataOptions(train=name, **options), COLUMNS, ("train",)).rows["train"]
    return list(zip(data["tokens"], data["ner_tags"], strict=True))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", SPACED),
        ("a.iob", SPACED.replace(" ", "\t")),
        ("a.bio", SPACED.replace("\n", "\r\n")),
        ("a.txt", "EU B-ORG\nrejects O\nGerman B-MISC\n \nPeter B-PER\nBlackburn I-PER"),
        ("a.tsv", "EU\tB-ORG\nrejects\tO\nGerman\tB-MISC\n\nPeter\tB-PER\nBlackburn\tI-PER\n\n"),
        ("a.conll.gz", gzip.compress(SPACED.encode())),
        ("a.jsonl", "".join(json.dumps({"tokens": words, "ner_tags": tags}) + "\n" for words, tags in ROWS)),
    ],
    ids=lambda given: given if isinstance(given, str) and len(given) < 12 else "",
)
def test_every_form_gives_the_same_rows(name, content):
    assert rows(name, content) == ROWS


def test_a_row_has_the_line_of_its_first_word():
    rows("a.conll", SPACED)
    data = load_splits(DataOptions(train="a.conll"), COLUMNS, ("train",))

    assert list(data.rows["train"]["row_id"]) == ["a.conll:3", "a.conll:8"]
    assert "a.conll: 1 lines -DOCSTART- are left out" in data.notes


def test_another_column_is_named_by_its_number():
    assert rows("a.conll", SPACED, columns={"ner_tags": "1"})[1][1] == ["NNP", "NNP"]


def test_conll_u_gives_forms_and_parts_of_speech_without_what_is_no_word():
    assert rows("a.conllu", UNIVERSAL) == [(["Vamos", "nos"], ["VERB", "PRON"]), (["mar"], ["NOUN"])]


def test_a_no_break_space_is_no_separator():
    assert rows("a.conll", "10\u00a0000 B-N\n") == [(["10\u00a0000"], ["B-N"])]


def test_a_file_to_be_answered_may_hold_words_alone(folder):
    (folder / "a.txt").write_text("EU\nrejects\n\nPeter\n")

    data = read_rows("a.txt", DataOptions(), Columns(("tokens",), words="tokens"))

    assert list(data["tokens"]) == [["EU", "rejects"], ["Peter"]]


def test_a_list_of_a_class_label_has_names_whatever_file_it_is_saved_in(folder):
    names = ["O", "B-ORG", "B-MISC", "B-PER", "I-PER"]
    made = datasets.Dataset.from_dict(
        {"tokens": [words for words, _ in ROWS], "ner_tags": [[names.index(tag) for tag in tags] for _, tags in ROWS]},
        features=datasets.Features(
            {
                "tokens": datasets.List(datasets.Value("string")),
                "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
            }
        ),
    )
    made.to_parquet(str(folder / "a.parquet"))
    made.save_to_disk(str(folder / "saved"))

    for name in ("a.parquet", "saved"):
        data = load_splits(DataOptions(train=name), COLUMNS, ("train",)).rows["train"]
        assert list(zip(data["tokens"], data["ner_tags"], strict=True)) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.conll", "EU B-ORG\nrejects\n", r'^a\.conll:2: 1 column \("rejects"\) where line 1 has 2 \("EU B-ORG"\)$'),
        ("a.conll", "EU B-ORG x\nrejects O\n", r"^a\.conll:2: 2 columns .* where line 1 has 3"),
        ("a.tsv", "EU\tB-ORG\n\tO\n", r"^a\.tsv:2: has an empty cell"),
        ("a.conll", "EU\nrejects\n", r'^a\.conll:1: has one column \("EU"\) and no tags'),
        ("a.conll", "\n\n", r"^a\.conll: is empty"),
        ("a.conll", "-DOCSTART- O\n\n", r"^a\.conll: is empty"),
        ("a.conll", b"caf\xe9 O\n", r"^a\.conll:1: .*utf-8"),
        ("a.csv", "tokens,ner_tags\nEU,O\n", r"a\.csv: is CSV, which has no lists"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(name, content, said):
    with pytest.raises(UserError, match=said):
        rows(name, content)


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r'a\.conll:3: has no column "7"; its columns: "0", "1", "2", "3"'):
        rows("a.conll", SPACED, columns={"ner_tags": "7"})


def test_words_a_line_are_no_rows_of_texts(folder):
    (folder / "a.conll").write_text(SPACED)

    with pytest.raises(UserError, match="holds a word a line, and the task reads text"):
        load_splits(DataOptions(train="a.conll"), Columns(("text",), "label"), ("train",))
