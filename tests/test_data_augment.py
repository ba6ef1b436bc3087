"""Copies of training rows with other words: what they are, where they stand, and where they never do."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import tiny

from finetune.cli import main
from finetune.data import load_splits
from finetune.data.options import AugmentOptions, DataOptions, Holdout
from finetune.editing.augmenting import read_thesaurus, varied
from finetune.errors import UserError
from finetune.task import Columns

TEXT = Columns(texts=("text",), label="label")
WORDS = "one two three four five six seven eight nine ten"
SAME = {"big": ("large", "great"), "film": ("movie",)}


@pytest.fixture
def thesaurus(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("good, fine, kind\nfilm, movie, picture show\n", encoding="utf-8")
    return path


def test_each_operation_does_what_it_is_called():
    for seed in map(str, range(30)):
        deleted = varied(WORDS, {"delete": 0.2}, {}, seed).split()
        assert len(deleted) == 8
        assert [word for word in WORDS.split() if word in deleted] == deleted
        swapped = varied(WORDS, {"swap": 0.1}, {}, seed).split()
        assert Counter(swapped) == Counter(WORDS.split())
        assert sum(one != other for one, other in zip(swapped, WORDS.split(), strict=True)) == 2
        replaced = varied("A Big, bad film!", {"replace": 0.25}, SAME, seed)
        assert replaced in {"A Large, bad film!", "A Great, bad film!", "A Big, bad movie!"}
        inserted = varied("a big film", {"insert": 0.3}, SAME, seed).split()
        assert len(inserted) == 4
        assert {"large", "great", "movie"} & set(inserted)


def test_what_cannot_be_varied_stays_as_it_is():
    assert varied("alone", {"delete": 0.9}, {}, "1") == "alone"
    assert varied("alone", {"swap": 0.9}, {}, "1") == "alone"
    assert varied("no such  words", {"replace": 0.9, "insert": 0.9}, SAME, "1") == "no such  words"


def test_a_copy_is_a_function_of_seed_row_and_number_alone(tmp_path):
    rows = tiny.sentences(20, seed=1)
    options = {"augment": AugmentOptions(copies=2, delete=0.2, swap=0.2), "duplicates": "off"}
    path = tiny.write_rows(tmp_path / "train.jsonl", rows)
    whole = load_splits(DataOptions(train=str(path), **options), TEXT, ("train",)).rows["train"]
    fewer = load_splits(DataOptions(train=str(path), max_train_rows=10, **options), TEXT, ("train",)).rows["train"]
    other = load_splits(DataOptions(train=str(path), seed=14, **options), TEXT, ("train",)).rows["train"]

    assert 50 < len(whole) <= 60
    by_id = dict(zip(whole["row_id"], whole["text"], strict=True))
    assert {row_id: by_id[row_id] for row_id in fewer["row_id"]} == dict(
        zip(fewer["row_id"], fewer["text"], strict=True)
    )
    assert [row_id.rpartition(":")[2] for row_id in whole["row_id"][:4]] == ["1", "1~1", "1~2", "2"]
    assert whole["label"][:4] == [rows[0]["label"]] * 3 + [rows[1]["label"]]
    assert by_id != dict(zip(other["row_id"], other["text"], strict=True))
    for made in (whole, other):
        assert [text for row_id, text in zip(made["row_id"], made["text"], strict=True) if "~" not in row_id] == [
            row["text"] for row in rows
        ]


def test_the_same_rows_elsewhere_have_the_same_copies_and_equal_rows_have_their_own(tmp_path):
    rows = [*tiny.sentences(20, seed=1), *[{"text": WORDS, "label": "x"}] * 8]
    made = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        path = tiny.write_rows(tmp_path / folder / f"{folder}.jsonl", rows)
        options = DataOptions(train=str(path), augment=AugmentOptions(delete=0.2, swap=0.2), duplicates="off")
        made.append(load_splits(options, TEXT, ("train",)).rows["train"])
    assert made[0]["text"][:] == made[1]["text"][:]
    copies = [
        text
        for row_id, text in zip(made[0]["row_id"], made[0]["text"], strict=True)
        if "~" in row_id and set(text.split()) <= set(WORDS.split())
    ]
    assert len(copies) == 8
    assert len(set(copies)) > 4


def test_held_out_rows_are_never_varied_and_never_leak(tmp_path):
    path = tiny.write_rows(tmp_path / "train.jsonl", tiny.sentences(60, seed=1))
    test = tiny.write_rows(tmp_path / "test.jsonl", tiny.sentences(20, seed=2))
    options = DataOptions(train=str(path), test=str(test), validation=Holdout(0.2),
                          augment=AugmentOptions(copies=3, delete=0.3))  # fmt: skip
    splits = load_splits(options, TEXT, ("train", "validation", "test"))

    held = {row_id.partition("~")[0] for name in ("validation", "test") for row_id in splits.rows[name]["row_id"]}
    assert not any("~" in row_id for row_id in held)
    assert not held & {row_id.partition("~")[0] for row_id in splits.rows["train"]["row_id"]}
    last = splits.ledger[-1]
    assert (last["split"], last["step"], last["before"], last["after"]) == (
        "train",
        "augmented",
        48,
        len(splits.rows["train"]),
    )
    assert 180 < last["after"] <= 192
    same = 192 - last["after"]  # two copies of a short row may be one
    counted = (
        f" of 144 wanted added to 48 train rows; {same} came out as an earlier copy"
        if same
        else " added to 48 train rows"
    )
    assert splits.notes[-1].startswith(f"augment: {144 - same} copies{counted}; {path}:")
    assert splits.notes[-1].count(" → ") == 3


def test_copies_that_are_the_row_itself_are_left_out_and_counted(tmp_path, thesaurus):
    rows = [{"text": "a good film", "label": "x"}, {"text": "no such words", "label": "y"}]
    path = tiny.write_rows(tmp_path / "train.jsonl", rows)
    given = AugmentOptions(replace=0.1, thesaurus=str(thesaurus))
    splits = load_splits(DataOptions(train=str(path), augment=given), TEXT, ("train",))

    assert len(splits.rows["train"]) == 3
    assert "1 copies of 2 wanted added to 2 train rows" in splits.notes[-1]
    assert str(thesaurus) in splits.fingerprints  # other synonyms make another run


def test_a_thesaurus_is_lines_of_words_that_mean_the_same(thesaurus, tmp_path):
    assert read_thesaurus(str(thesaurus))["good"] == ("fine", "kind")
    assert read_thesaurus(str(thesaurus))["picture show"] == ("film", "movie")
    thesaurus.write_text("good, fine, kind\n", encoding="utf-8-sig")  # with a mark before the first word
    assert set(read_thesaurus(str(thesaurus))) == {"good", "fine", "kind"}
    (tmp_path / "bad.txt").write_text("a, b\nalone\n")
    with pytest.raises(UserError, match=r"bad\.txt:2: 'alone' stands alone"):
        read_thesaurus(str(tmp_path / "bad.txt"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="holds no words"):
        read_thesaurus(str(tmp_path / "empty.txt"))


def test_preview_shows_copies_beside_their_rows_and_training_counts_them(
    home, run, sections, write_recipe, tmp_path, capsys
):
    recipe = write_recipe(sections("text-classification", data={"augment": {"swap": 0.2}}))
    assert main(["preview", str(recipe), "--rows", "2"]) == 0
    shown = capsys.readouterr().out
    assert "train.jsonl:1 ·" in shown
    assert "train.jsonl:1~1 ·" in shown
    made = run("text-classification", data={"augment": {"swap": 0.2}}, evaluate={"baselines": True})
    data = json.loads((made / "data.json").read_text())
    assert 64 < data["encoding"]["train"]["rows"] <= 128
    assert data["encoding"]["test"]["rows"] == 22


@pytest.mark.parametrize(
    ("kind", "augment", "said"),
    [
        ("text-classification", {}, "nothing is done; set one of delete"),
        ("text-classification", {"delete": 1.5}, "data.augment.delete is 1.5; it is a share"),
        ("text-classification", {"copies": 0, "delete": 0.1}, "data.augment.copies is 0"),
        ("text-classification", {"replace": 0.1}, "thesaurus is missing: replace needs a file of synonyms"),
        ("text-classification", {"swap": 0.1, "thesaurus": "x.txt"}, "thesaurus is for replace and insert"),
        ("text-classification", {"replace": 0.1, "thesaurus": "x.txt"}, "x.txt cannot be read: No such file"),
        ("text-classification", {"deleted": 0.1}, "Did you mean delete"),
        (
            "causal-lm",
            {"delete": 0.1},
            "varies texts that have a label as a whole; those of task.kind causal-lm have not",
        ),
        ("image-classification", {"delete": 0.1}, "varies texts that have a label"),
        ("token-classification", {"delete": 0.1}, "varies texts that have a label as a whole"),
    ],
)
def test_variation_that_cannot_be_meant_is_refused(sections, write_recipe, capsys, kind, augment, said):
    assert main(["train", str(write_recipe(sections(kind, data={"augment": augment})))]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune: ")]
    assert len(error) == 1
    assert said in error[0], error[0]
