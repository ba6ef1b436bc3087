"""Copies of an image are found by its pixels, within a split and across splits."""

from __future__ import annotations

import numpy as np
import pytest
from test_image_data import COLOUR, COLUMNS, GREY, LABELS, encoded, npz, put, read

from finetune.data import DataOptions, Holdout, load_splits
from finetune.errors import UserError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_equal_images_are_found_within_a_split_and_across_splits():
    twice = np.concatenate([GREY, GREY[:1]])
    np.savez("train.npz", image=twice, label=[*LABELS, "dog"])
    np.savez("test.npz", image=COLOUR.mean(axis=3).astype(np.uint8), label=LABELS)
    noted = read("train.npz").notes

    assert noted == [
        "train.npz:5: 1 of 5 train rows (20.0%) have the image of an earlier row and another label "
        '("cat" and "dog"): train.npz:1 is the first'
    ]
    put("leaky/cat/a.png", encoded(GREY[2]))
    put("leaky/dog/b.png", encoded(255 - GREY[2]))
    with pytest.raises(UserError, match=r"leaky/cat/a.png: the image is that of train.npz:3; leakage: of 2 rows of"):
        load_splits(DataOptions(train="train.npz", test="leaky"), COLUMNS)
    clean = load_splits(DataOptions(train="train.npz", test="test.npz"), COLUMNS)
    assert clean.notes[-1] == "leakage: none; 4 rows of test against 5 of train compared, exactly"


def test_duplicates_are_dropped_when_asked():
    np.savez("t.npz", image=np.concatenate([GREY, GREY]), label=LABELS * 2)

    assert len(read("t.npz", duplicates="drop").rows["train"]) == 4


def test_validation_is_cut_out_of_images_by_class_and_copies_stay_together():
    images = np.random.default_rng(2).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 3 // 2  # two thirds of class 0
    np.savez("t.npz", image=np.concatenate([images, images]), label=np.concatenate([labels, labels]))

    splits = load_splits(
        DataOptions(train="t.npz", validation=Holdout(0.25, stratify=True), duplicates="off"), COLUMNS
    ).rows

    assert len(splits["validation"]) == 30
    assert sum(splits["validation"]["label"]) == 10
    assert not set(splits["train"]["image"]) & set(splits["validation"]["image"])


def test_some_rows_can_be_drawn():
    assert len(read(npz(GREY), max_train_rows=3).rows["train"]) == 3
