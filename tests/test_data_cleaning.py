"""Cleaning on the way from files to scores: in order, counted, shown, alike at prediction, refused where it harms."""

from __future__ import annotations

import json

import pytest
import tiny

from finetune.cli import main
from finetune.data import load_splits, read_rows
from finetune.data.cleaning import example
from finetune.data.options import DataOptions
from finetune.editing import plan
from finetune.errors import UserError
from finetune.task import Columns

TEXT = Columns(texts=("text",))
PAIR = Columns(texts=("source",), target="target")


def load(path, steps, columns=TEXT, **given):
    return load_splits(DataOptions(train=str(path), clean=steps, **given), columns, ("train",))


def rows(tmp_path, *texts, name="train.jsonl"):
    return tiny.write_rows(tmp_path / name, [{"text": text} for text in texts])


def test_steps_are_taken_in_the_order_of_the_recipe(tmp_path):
    path = rows(tmp_path, "<b>mail</b> a@b.de", "&lt;b&gt;", "x  y")

    assert load(path, ["scrub", "html"]).rows["train"]["text"] == ["mail <EMAIL>", "<b>", "x  y"]
    assert load(path, ["html", "html"]).rows["train"]["text"] == ["mail a@b.de", "x  y"]  # "<b>" is a tag by then
    assert load(path, ["html", {"length": {"min_characters": 4}}]).rows["train"]["text"] == ["mail a@b.de", "x  y"]
    assert load(path, [{"length": {"min_characters": 4}}, "html"]).rows["train"]["text"] == [
        "mail a@b.de",
        "<b>",
        "x  y",
    ]


def test_every_step_says_what_it_changed_or_dropped_with_three_examples(tmp_path):
    path = rows(tmp_path, *[f"text <i>{n}</i>" for n in range(5)], "short", "<br>", "write to a@b.de please")
    splits = load(path, ["html", {"length": {"min_words": 2}}])

    html, length = splits.notes[:2]
    assert html.startswith("clean: html changed 6 of 8 train rows; ")
    assert f'{path}:1: "text <i>0</i>" → "text 0"; {path}:2:' in html
    assert html.count(" → ") == 3
    assert length.startswith("clean: length dropped 2 of 8 train rows; ")
    assert f'{path}:6: "short"' in length
    assert [(row["step"], row["before"], row["after"]) for row in splits.ledger] == [
        ("read", 8, 8), ("clean: length", 8, 6)]  # fmt: skip


def test_where_a_step_hides_something_no_step_shows_it(tmp_path):
    path = rows(
        tmp_path, "mail  me a@b.de", "to a@<i>b</i>.de", "call 0171 2345678, a@b.de", "a@b.de", "spam x@y.org now"
    )
    steps = ["whitespace", "html", {"scrub": ["email"]}, {"scrub": ["phone"]}, {"block": {"words": ["spam"]}},
             {"length": {"min_words": 2}}]  # fmt: skip

    notes = load(path, steps).notes
    assert notes[:6] == [
        f"clean: whitespace changed 1 of 5 train rows; {path}:1",
        f"clean: html changed 1 of 5 train rows; {path}:2",
        f'clean: scrub changed 5 of 5 train rows; {path}:1: "mail me <EMAIL>"; {path}:2: "to <EMAIL>"; '
        f'{path}:3: "call <PHONE>, <EMAIL>"',  # what the second one hides is not shown by the first
        f'clean: scrub changed 1 of 5 train rows; {path}:3: "call <PHONE>, <EMAIL>"',
        f"clean: block dropped 1 of 5 train rows; {path}:5",
        f"clean: length dropped 1 of 4 train rows; {path}:4",
    ]
    notes = load(path, [{"length": {"min_words": 2}}, "scrub"]).notes
    assert notes[0] == f"clean: length dropped 1 of 5 train rows; {path}:4"


def test_a_step_that_stands_twice_is_said(sections, write_recipe, capsys):
    steps = ["html", {"scrub": ["email"]}, "html", {"scrub": ["phone"]}]
    assert main(["check", str(write_recipe(sections("text-classification", data={"clean": steps})))]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Beware")]
    assert said == ["Beware: data.clean.2 says html again: it cleans what data.clean.0 and those after it left."]


def test_rows_that_nothing_is_left_of_are_dropped_and_said(tmp_path):
    splits = load(rows(tmp_path, "<br>", "a", "b"), ["html"])

    assert splits.rows["train"]["text"] == ["a", "b"]
    assert any("left empty dropped 1 of 3 train rows" in note for note in splits.notes)
    with pytest.raises(UserError, match=r"data\.clean: no row of train is left; length dropped the last"):
        load(rows(tmp_path, "a", "b"), [{"length": {"min_words": 5}}])


def test_duplicates_and_leaks_are_looked_for_in_clean_texts(tmp_path):
    train, test = rows(tmp_path, "<b>same</b> text"), rows(tmp_path, "same <i>text</i>", name="test.jsonl")
    options = DataOptions(train=str(train), test=str(test), clean=["html"])

    with pytest.raises(UserError, match="the text is that of"):
        load_splits(options, TEXT, ("train", "test"))


def test_targets_are_cleaned_as_sources_are(tmp_path):
    path = tiny.write_rows(tmp_path / "train.jsonl", [{"source": "<b>a</b>", "target": "<i>b</i>"}])

    assert load(path, ["html"], PAIR).rows["train"][0] == {"source": "a", "target": "b", "row_id": f"{path}:1"}


def test_at_prediction_texts_are_edited_and_no_row_is_dropped(tmp_path):
    path = rows(tmp_path, "<b>a</b>", "<br>", "c d")
    options = DataOptions(clean=["html", {"length": {"min_words": 2}}])

    assert read_rows(str(path), options, TEXT)["text"] == ["a", "", "c d"]


def test_streamed_rows_are_cleaned_as_they_pass(tmp_path):
    path = rows(tmp_path, "<b>a</b> b", "c", "d e")
    splits = load(path, ["html", {"length": {"min_words": 2}}], streaming=True)

    assert sorted(row["text"] for row in splits.stream) == ["a b", "d e"]
    assert "data.clean changes and drops of them is not counted" in splits.notes[-1]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("a  b", "a b", '"a  b" → "a b"'),
        ("x" * 60 + "<b>y</b>", "x" * 60 + "y", f'"… {"x" * 14}<b>y</b>" → "… {"x" * 14}y"'),
        ("end" + "\u200b" * 3, "end", '"end\\u200b\\u200b\\u200b" → "end"'),
    ],
)
def test_an_example_shows_where_a_text_was_changed(before, after, said):
    assert example(before, after) == said


def test_a_run_cleans_what_it_is_asked_later_as_it_was_trained(home, run, tmp_path, capsys):
    words = tmp_path / "words.txt"
    words.write_text("evening\nmusic\n")
    clean = ["html", {"stop_words": {"file": str(words)}}]
    made = run("text-classification", data={"clean": clean}, task={"max_length": 32})
    words.unlink()  # the run knows them
    dirty = tiny.write_rows(tmp_path / "dirty.jsonl", [{"text": "a <b>good</b> evening"}, {"text": "<br>"}])
    plain = tiny.write_rows(tmp_path / "plain.jsonl", [{"text": "a good"}, {"text": "a"}])

    answers = []
    for file in (dirty, plain):
        assert main(["predict", str(made), str(file), "--output", str(tmp_path / "answers.jsonl")]) == 0
        answers.append([json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()])
    assert len(answers[0]) == 2
    assert answers[0][0]["score"] == answers[1][0]["score"]
    assert answers[0][0]["text"] == "a good"
    data = json.loads((made / "data.json").read_text())
    note = next(note for note in data["notes"] if note.startswith("clean: stop_words changed"))
    assert note.count(" → ") == 3
    assert note.replace('"', "&#34;") in (made / "report.html").read_text(encoding="utf-8")
    assert main(["evaluate", str(made)]) == 0


@pytest.mark.parametrize(
    ("kind", "steps", "said"),
    [
        (
            "text-classification",
            ["htlm"],
            r"recipe\.yaml:\d+: data\.clean\.0: htlm is no step of cleaning\. Did you mean html",
        ),
        ("text-classification", "html", r"data\.clean"),
        ("image-classification", ["html"], "data.clean cleans texts, and task.kind image-classification reads images"),
        ("chat", ["whitespace"], "task.kind chat makes its own of several; clean the files"),
        ("causal-lm", ["stop_words"], "stop_words is for tasks with labels, and task.kind causal-lm learns to write"),
        ("seq2seq", ["html", "stop_words"], "stop_words is for tasks with labels"),
        ("token-classification", ["html"], "html looks at texts, and the rows of .* are lists of words"),
    ],
)
def test_cleaning_that_cannot_be_meant_is_refused(sections, write_recipe, capsys, kind, steps, said):
    import re

    assert main(["train", str(write_recipe(sections(kind, data={"clean": steps})))]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune: ")]
    assert len(error) == 1
    assert re.search(said, error[0]), error[0]


@pytest.mark.parametrize(
    ("kind", "step", "said"),
    [("question-answering", "html", "moves the places in a text"),
     ("question-answering", {"length": {"min_words": 2}}, None)],
)  # fmt: skip
def test_texts_whose_places_are_learned_are_not_edited(kind, step, said):
    from types import SimpleNamespace

    from finetune.recipe_checks import _of_cleaning

    task = SimpleNamespace(kind=kind, columns=lambda: TEXT)
    found = list(_of_cleaning(SimpleNamespace(task=task), plan([step])))
    assert (said is None and not found) or (said is not None and said in found[0])
