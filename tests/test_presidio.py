"""The step `presidio` of data.clean: what overlaps, what is refused, and Presidio itself with a stand-in model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.editing import plan
from finetune.editing.presidio import replaced
from finetune.errors import UserError


def test_of_what_overlaps_the_surest_and_then_the_longest_is_replaced():
    text = "Jane Doe of Kent"
    found = [(0, 4, "LOCATION", 0.6), (0, 8, "PERSON", 0.85), (5, 8, "NRP", 0.85), (12, 16, "LOCATION", 0.5)]

    assert replaced(text, found) == "<PERSON> of <LOCATION>"
    assert replaced(text, reversed(found)) == "<PERSON> of <LOCATION>"
    assert replaced(text, []) == text


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"presidio": ["PERSON"]}, r"data\.clean\.0\.presidio: \['PERSON'\] says nothing; give options: model"),
        ({"presidio": {"entitys": ["PERSON"]}}, r"presidio\.entitys is not an option\. Did you mean entities\?"),
        ({"presidio": {"entities": []}}, r"presidio\.entities: \[\] is no list of kinds"),
        ({"presidio": {"threshold": 2}}, r"presidio\.threshold is 2; it is a score from 0 to 1"),
        ({"presidio": {"model": 3}}, r"presidio: model and language are names"),
        ({"presido": {}}, r"presido is no step of cleaning\. Did you mean presidio\?"),
    ],
)
def test_what_cannot_be_meant_is_refused(told, line):
    with pytest.raises(UserError, match=line):
        plan([told])


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("finetune.editing.presidio.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'presidio needs presidio-analyzer: pip install "finetune\[presidio\]"'):
        plan(["presidio"])


def test_without_the_model_it_is_said_how_to_get_it(monkeypatch):
    there = {"presidio_analyzer": object()}
    monkeypatch.setattr("finetune.editing.presidio.find_spec", there.get)
    with pytest.raises(UserError, match="en_core_web_lg is neither an installed model of spaCy nor a folder: python"):
        plan(["presidio"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of spaCy that knows two names by a list: the published models cannot be had without a network."""
    pytest.importorskip("presidio_analyzer", reason="the extra presidio is not installed")
    import spacy

    language = spacy.blank("en")
    ruler = language.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Jane Doe"}, {"label": "GPE", "pattern": "Kent"}])
    folder = tmp_path_factory.mktemp("spacy") / "names"
    language.to_disk(folder)
    return folder


def test_presidio_replaces_names_and_places_by_their_kind(model):
    (step,) = plan([{"presidio": {"model": str(model)}}])

    assert step.edit("Jane Doe lives in Kent. Jane is there.") == "<PERSON> lives in <LOCATION>. Jane is there."
    assert not step.shows_before
    (mails,) = plan([{"presidio": {"model": str(model), "entities": "IP_ADDRESS"}}])
    assert mails.edit("Jane Doe has 192.168.1.10") == "Jane Doe has <IP_ADDRESS>"
    (unknown,) = plan([{"presidio": {"model": str(model), "entities": ["PERSONS"]}}])
    with pytest.raises(UserError, match=r"entities: PERSONS is not known\. Did you mean PERSON\? Known: .*LOCATION"):
        unknown.edit("Jane Doe")


def test_a_folder_that_is_no_model_is_said_in_a_line(model, tmp_path):
    (step,) = plan([{"presidio": {"model": str(tmp_path)}}])
    with pytest.raises(UserError, match=r"presidio\.model: .* cannot be loaded: "):
        step.edit("Jane Doe")


def test_rows_are_cleaned_by_it(model, sections, write_recipe, tmp_path):
    from finetune.recipe import Recipe
    from finetune.rewriting import load_rows

    rows = [{"text": f"Jane Doe saw film {number}", "label": "ab"[number % 2]} for number in range(20)]
    path = tmp_path / "names.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": str(path), "clean": [{"presidio": {"model": str(model)}}]}
    splits = load_rows(Recipe.read(write_recipe(sections("text-classification", data=data))), ("train",))

    assert splits.rows["train"]["text"][3] == "<PERSON> saw film 3"
    note = next(note for note in splits.notes if "presidio" in note)
    assert note.startswith("clean: presidio changed 20 of 20 train rows")
    assert "Jane" not in note
