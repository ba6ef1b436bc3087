"""Synonyms by WordNet, on a database made by hand in its format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from tiny_wordnet import write_wordnet

from finetune.data import load_splits
from finetune.data.options import AugmentOptions, DataOptions
from finetune.editing.augmenting import read_thesaurus
from finetune.errors import UserError
from finetune.task import Columns

TEXT = Columns(texts=("text",), label="label")


def test_synonyms_are_the_words_of_a_words_sets_as_it_stands(tmp_path):
    known = read_thesaurus(str(write_wordnet(tmp_path / "dict")))

    assert known["film"] == ("movie", "moving picture", "shoot")
    assert known["big"] == ("large", "prominent")
    assert known["dog"] == ("domestic dog",)
    assert "films" not in known  # another form
    assert "well" not in known  # a stop word
    assert "nothing" not in known
    assert "domestic dog" not in known
    assert set(known) == {"movie", "film", "dog", "good", "fine", "big", "large", "prominent", "shoot"}
    assert len(known) == 9


def test_rows_are_varied_by_a_folder_of_wordnet_which_marks_the_run(tmp_path):
    folder = write_wordnet(tmp_path / "dict")
    rows = [{"text": "A big film!", "label": "x"}, {"text": "it was so", "label": "y"}]
    path = tiny.write_rows(tmp_path / "train.jsonl", rows)
    options = DataOptions(train=str(path), augment=AugmentOptions(replace=0.1, thesaurus=str(folder)))
    splits = load_splits(options, TEXT, ("train",))

    assert len(splits.rows["train"]) == 3
    made = splits.rows["train"]["text"][1]
    assert made in {"A large film!", "A prominent film!", "A big movie!", "A big moving picture!", "A big shoot!"}
    assert splits.fingerprints[str(folder)]["bytes"] > 0


def test_nltks_own_wordnet_is_read_where_it_is_installed(tmp_path):
    write_wordnet_under(tmp_path / "nltk_data")
    code = "from finetune.editing.augmenting import read_thesaurus; print(read_thesaurus('wordnet')['film'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False,
        env={"PATH": "", "NLTK_DATA": str(tmp_path / "nltk_data"), "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.stdout.strip() == "('movie', 'moving picture', 'shoot')", done.stderr


def write_wordnet_under(root: Path) -> None:
    (root / "corpora").mkdir(parents=True)
    write_wordnet(root / "corpora" / "wordnet")


def test_what_is_no_wordnet_is_said_in_a_line(tmp_path, monkeypatch):
    folder = write_wordnet(tmp_path / "dict")
    (folder / "index.verb").unlink()
    with pytest.raises(UserError, match=r"dict is no folder of WordNet's database: index\.verb is missing"):
        read_thesaurus(str(folder))
    broken = write_wordnet(tmp_path / "broken")
    (broken / "index.noun").write_text("film n x 0 1 0 00000053\n")
    with pytest.raises(UserError, match="broken is no whole database of WordNet: "):
        read_thesaurus(str(broken))
    monkeypatch.setattr("finetune.editing.wordnet.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'wordnet is read by nltk: pip install "finetune\[wordnet\]"'):
        read_thesaurus("wordnet")


def test_nltk_without_its_wordnet_says_how_to_get_it():
    with pytest.raises(UserError, match=r"nltk has no WordNet here: python -m nltk\.downloader wordnet, or name the"):
        read_thesaurus("wordnet")
