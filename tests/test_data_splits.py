"""No text stands on both sides of a split, and every row is accounted for."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from itertools import combinations, pairwise, product
from pathlib import Path

import pytest

from finetune.data import DataOptions, Holdout, Source, Splits, load_splits
from finetune.data.duplicates import normal_text
from finetune.data.similarity import NearIndex, bands, jaccard, near_pairs, shingles
from finetune.errors import UserError
from finetune.task import Columns

COLUMNS = Columns(("text",), "label")
WORDS = ["".join(pair) for pair in product(("ka", "lo", "mi", "nu", "pe", "ra", "si", "to", "vu"), repeat=2)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: str, rows: list[dict]) -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sentence(rng: random.Random, words: int = 14) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def made(count: int, seed: int = 0, **more: object) -> list[dict]:
    rng = random.Random(seed)
    return [{"text": sentence(rng), "label": rng.choice("xxy"), **more} for _ in range(count)]


def load(task: Columns = COLUMNS, **options: object) -> Splits:
    return load_splits(DataOptions(**options), task)


def with_copies(seed: int) -> list[dict]:
    """Return rows of which some are copies but for case and spaces, or for a letter at the end."""
    rng = random.Random(seed)
    rows = [{**row, "user": f"u{rng.randrange(60)}"} for row in made(120, seed)]
    for row in rng.choices(rows, k=40):
        text = rng.choice([row["text"].upper(), f"  {row['text']} ", row["text"] + "."])
        rows.append({**row, "text": text})
    rng.shuffle(rows)
    return rows


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("group", [None, "user"])
def test_our_own_split_never_leaks_and_loses_no_row(seed, group):
    put("train.jsonl", with_copies(seed))

    rows = load(train="train.jsonl", validation=Holdout(0.3, stratify=seed % 2 == 0, group=group), seed=seed).rows

    sides = {name: [normal_text(text) for text in rows[name]["text"]] for name in rows}
    assert not set(sides["train"]) & set(sides["validation"])
    for one in sides["train"]:
        assert all(jaccard(shingles(one), shingles(other)) < 0.9 for other in sides["validation"])
    ids = [*rows["train"]["row_id"], *rows["validation"]["row_id"]]
    assert sorted(ids) == sorted(f"train.jsonl:{at + 1}" for at in range(160))
    if group:
        assert not set(rows["train"]["user"]) & set(rows["validation"]["user"])


def test_a_split_has_the_share_asked_for_and_keeps_that_of_each_label():
    rng = random.Random(1)
    shares = {"often": 700, "seldom": 250, "rare": 49, "once": 1}
    rows = [{"text": sentence(rng), "label": label} for label, count in shares.items() for _ in range(count)]
    put("train.jsonl", rows)

    validation = load(train="train.jsonl", validation=Holdout(0.1, stratify=True)).rows["validation"]

    counts = Counter(validation["label"])
    assert counts["often"] == 70
    assert counts["seldom"] == 25
    assert counts["rare"] == 5
    assert counts["once"] == 0  # training must see every class


def test_a_seed_gives_one_split_and_another_seed_another():
    put("train.jsonl", made(200))
    split = {seed: load(train="train.jsonl", validation=Holdout(0.2), seed=seed).rows for seed in (1, 2)}
    again = load_splits(
        DataOptions(train="train.jsonl", validation=Holdout(0.2), seed=1), COLUMNS, ("validation",)
    ).rows

    assert list(again) == ["validation"]
    assert again["validation"]["row_id"][:] == split[1]["validation"]["row_id"][:]
    assert split[1]["validation"]["row_id"][:] != split[2]["validation"]["row_id"][:]


def test_a_split_with_an_empty_side_or_fractions_for_classes_is_refused():
    put("same.jsonl", [{"text": "same text", "label": "x"}] * 9)
    put("numbers.jsonl", [{"text": text, "label": at + 0.5} for at, text in enumerate(WORDS)])

    with pytest.raises(UserError, match="9 rows in 1 groups that stay together leaves a side empty"):
        load(train="same.jsonl", validation=Holdout(0.5))
    with pytest.raises(UserError, match='column "label" holds fractions'):
        load(train="numbers.jsonl", validation=Holdout(0.5, stratify=True))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
def test_minhash_finds_the_pairs_that_comparing_all_finds(threshold):
    rng = random.Random(7)
    texts = [sentence(rng) for _ in range(60)]
    for text in texts[:40]:
        letters = list(text)
        for _ in range(rng.randint(0, 4)):
            letters[rng.randrange(len(letters))] = rng.choice("xyz")
        texts.append("".join(letters))
    all_pairs = {
        (later, earlier)
        for earlier, later in combinations(range(len(texts)), 2)
        if jaccard(shingles(texts[earlier]), shingles(texts[later])) >= threshold
    }
    half = NearIndex(threshold, texts[:50])

    assert set(near_pairs(texts, threshold)) == all_pairs
    assert {(at, place) for at in range(50, len(texts)) for place in half.near(texts[at])} == {
        pair for pair in all_pairs if pair[0] >= 50 > pair[1]
    }


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 0.99, 1.0])
def test_a_pair_at_the_threshold_is_missed_once_in_a_thousand_at_most(threshold):
    count, rows = bands(threshold)

    assert count * rows <= 128
    assert (1 - threshold**rows) ** count <= 1e-3


def leaky(copies: int, change: str = "{}", label: str | None = None) -> None:
    train, test = made(300, 1), made(100, 2)
    for at in range(copies):
        test[at] = {"text": change.format(train[at]["text"]), "label": label or train[at]["label"]}
    put("train.jsonl", train)
    put("test.jsonl", test)


def test_a_leak_is_refused_with_both_lines_the_count_and_the_share():
    leaky(5, "  {}  ")

    with pytest.raises(UserError) as caught:
        load(train="train.jsonl", test="test.jsonl")

    assert str(caught.value).startswith("test.jsonl:1: the text is that of train.jsonl:1; ")
    assert "of 100 rows of test against 300 of train: 5 (5.0%) equal" in str(caught.value)
    assert "data.leakage: warn" in str(caught.value)


def test_a_leak_with_another_label_is_told_apart():
    leaky(3, label="z")

    notes = load(train="train.jsonl", test="test.jsonl", leakage="warn").notes

    assert "3 (3.0%) equal but for another label, test.jsonl:1 = train.jsonl:1" in notes[-1]


def test_what_is_nearly_equal_is_said_and_refused_when_it_is_much():
    leaky(8, "{}!")
    notes = load(train="train.jsonl", test="test.jsonl").notes
    assert "8 (8.0%) nearly equal, test.jsonl:1 = train.jsonl:1" in notes[-1]

    leaky(30, "{}!")
    with pytest.raises(UserError, match=r"30 \(30\.0%\) nearly equal.*data\.leakage_near 10\.0%"):
        load(train="train.jsonl", test="test.jsonl")


def test_one_leak_in_a_hundred_is_tolerated_and_said():
    leaky(1)

    notes = load(train="train.jsonl", test="test.jsonl").notes

    assert "1 (1.0%) equal, test.jsonl:1 = train.jsonl:1" in notes[-1]


def test_what_was_compared_is_said_and_nothing_is_when_it_is_off():
    leaky(0)
    notes = load(train="train.jsonl", test="test.jsonl").notes
    assert notes == ["leakage: none; 100 rows of test against 300 of train compared, exactly and by MinHash"]

    leaky(50)
    assert load(train="train.jsonl", test="test.jsonl", leakage="off").notes == []


def test_pairs_of_texts_leak_only_as_pairs():
    pairs = Columns(("text", "other"))
    put("train.jsonl", [{"text": text, "other": "the same claim"} for text in WORDS])
    put("test.jsonl", [{"text": f"{text} {text}", "other": "the same claim"} for text in WORDS])

    assert "none" in load(pairs, train="train.jsonl", test="test.jsonl").notes[-1]


def test_duplicates_are_said_dropped_or_refused_and_contradictions_kept():
    put("train.jsonl", [{"text": text, "label": label} for text, label in ("ax", "by", "Ax", "cx", "ay", "Cy")])
    notes = load(train="train.jsonl").notes
    dropped = load(train="train.jsonl", duplicates="drop")

    assert notes[0].startswith("train.jsonl:3: 1 of 6 train rows (16.7%) repeat an earlier row: train.jsonl:1 is")
    assert notes[1].startswith("train.jsonl:5: 2 of 6 train rows (33.3%) have the text of an earlier row and another")
    assert dropped.rows["train"]["row_id"] == [f"train.jsonl:{line}" for line in (1, 2, 4, 5, 6)]
    assert {"split": "train", "step": "duplicates dropped", "before": 6, "after": 5} in dropped.ledger
    with pytest.raises(UserError, match=r"train\.jsonl:3: 1 of 6 train rows"):
        load(train="train.jsonl", duplicates="error")
    assert load(train="train.jsonl", duplicates="off").notes == []


def test_a_mixture_follows_its_weights_repeats_nothing_and_says_where_it_stops():
    for name, count in (("a", 4000), ("b", 1000)):
        put(f"{name}.jsonl", [{"text": f"{name} {at}", "label": name} for at in range(count)])
    sources = [Source("a.jsonl", weight=1), Source("b.jsonl", weight=3)]

    splits = load(train=sources, seed=5)
    labels, ids = splits.rows["train"]["label"][:], splits.rows["train"]["row_id"][:]

    assert len(set(ids)) == len(ids)
    assert labels.count("b") / len(labels) == pytest.approx(0.75, abs=0.05)
    assert 1000 in (labels.count("a"), labels.count("b"))
    assert any("until the first is used up" in note for note in splits.notes)
    assert load(train=sources, seed=5).rows["train"]["row_id"] == ids
    assert load(train=["a.jsonl", "b.jsonl"]).rows["train"].num_rows == 5000


def test_limits_draw_rows_by_seed_and_keep_their_order():
    put("train.jsonl", made(100))
    options = {"train": "train.jsonl", "max_train_rows": 10}
    lines = [int(each.split(":")[1]) for each in load(**options).rows["train"]["row_id"]]

    assert len(lines) == 10
    assert lines == sorted(lines) != list(range(1, 11))
    assert load(**options).rows["train"]["row_id"][:] == load(**options).rows["train"]["row_id"][:]
    assert load(**options, seed=1).rows["train"]["row_id"][:] != load(**options, seed=2).rows["train"]["row_id"][:]


def test_the_ledger_accounts_for_every_row_and_files_have_fingerprints():
    put("train.jsonl", [*made(100), {"text": " ", "label": "x"}])
    put("test.jsonl", made(20, 9))
    options = {"validation": Holdout(0.2), "empty_texts": "drop", "duplicates": "drop", "max_train_rows": 50}

    splits = load(train="train.jsonl", test="test.jsonl", **options)

    for name in splits.rows:
        steps = [row for row in splits.ledger if row["split"] == name]
        assert all(one["after"] == other["before"] for one, other in pairwise(steps))
        assert steps[-1]["after"] == splits.rows[name].num_rows
    content = Path("train.jsonl").read_bytes()
    expected = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "rows": 101}
    assert splits.fingerprints["train.jsonl"] == expected


def test_only_the_wanted_splits_are_read():
    put("test.jsonl", made(5))

    splits = load_splits(DataOptions(train="is not there.csv", test="test.jsonl"), COLUMNS, ("test",))

    assert list(splits.rows) == ["test"]
