"""Questions and answers are read alike from SQuAD's own files, flat rows and Parquet."""

from __future__ import annotations

import json

import datasets
import pytest

from finetune.data import DataOptions, Holdout, load_splits
from finetune.task import Columns

COLUMNS = Columns(("question", "context"), "answers", passage="context")
CONTEXT = "the film felt warm and my evening was dull . its actors felt brave"


def rows(*given: tuple[str, str, list[str]]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({
        "question": [question for question, _, _ in given],
        "context": [context for _, context, _ in given],
        "answers": [
            {"text": texts, "answer_start": [context.index(text) for text in texts]} for _, context, texts in given
        ],
        "row_id": [f"a.jsonl:{number + 1}" for number in range(len(given))],
    })  # fmt: skip


NESTED = {"version": "v2.0", "data": [
    {"title": "Films", "paragraphs": [{"context": CONTEXT, "qas": [
        {"id": "q1", "question": "How did the film feel?", "answers": [{"text": "warm", "answer_start": 14}] * 2,
         "is_impossible": False},
        {"id": "q2", "question": "Who?", "answers": [], "is_impossible": True,
         "plausible_answers": [{"text": "film", "answer_start": 4}]},
    ]}]},
]}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2])
def test_squads_own_files_give_a_row_a_question(tmp_path, indent):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(NESTED, indent=indent))

    data = load_splits(DataOptions(train=str(path), duplicates="off"), COLUMNS, ("train",)).rows["train"]

    assert data["row_id"][:] == [f"{path}#q1", f"{path}#q2"]
    assert data["context"][:] == [CONTEXT] * 2
    assert data["answers"][:] == [{"text": ["warm"] * 2, "answer_start": [14] * 2}, {"text": [], "answer_start": []}]


def test_answers_are_read_alike_from_lists_of_objects_single_ones_and_parquet(tmp_path):
    flat = [{"text": ["warm"], "answer_start": [14]}, [{"text": "warm", "answer_start": 14}],
            {"text": "warm", "answer_start": 14}]  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"question": "q", "context": CONTEXT, "answers": each}) + "\n" for each in flat))
    given = rows(("q", CONTEXT, ["warm"]))
    given.to_parquet(str(tmp_path / "a.parquet"))

    for name in ("a.jsonl", "a.parquet"):
        data = load_splits(DataOptions(train=str(tmp_path / name), duplicates="off"), COLUMNS, ("train",)).rows["train"]
        assert all(each == {"text": ["warm"], "answer_start": [14]} for each in data["answers"])


def test_validation_can_be_held_out_by_article(tmp_path):
    path = tmp_path / "dev.json"
    articles = [
        {"title": f"t{n}", "paragraphs": [{"context": f"{CONTEXT} {n} {n * 'x'}", "qas": [
            {"id": f"{n}-{q}", "question": f"how {q}", "answers": [{"text": "warm", "answer_start": 14}]}
            for q in range(3)]}]} for n in range(8)
    ]  # fmt: skip
    path.write_text(json.dumps({"data": articles}))
    options = DataOptions(
        train=str(path), validation=Holdout(fraction=0.25, group="title"), leakage="off", duplicates="off"
    )
    splits = load_splits(options, COLUMNS).rows

    sides = [
        {row_id.split("#")[1].split("-")[0] for row_id in splits[name]["row_id"]} for name in ("train", "validation")
    ]
    assert not sides[0] & sides[1]
    assert len(splits["validation"]) % 3 == 0


def test_questions_to_be_answered_need_no_answers(tmp_path):
    from finetune.data import read_rows

    path = tmp_path / "test.json"
    path.write_text(
        json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": [{"id": 7, "question": "How?"}]}]}]})
    )

    data = read_rows(str(path), DataOptions(), Columns(("question", "context"), passage="context"))

    assert (data["question"][:], data["row_id"][:]) == (["How?"], [f"{path}#7"])
