"""`finetune init`: a file is taken for what people would take it for, and the recipe that is written is one."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tiny
from PIL import Image

from finetune.cli import main
from finetune.recipe import Recipe

TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
LONG = "a much longer text about a film that was seen on an evening number"
FILES = {
    "labels": ([{"text": f"{LONG} {n}", "label": "ab"[n % 2]} for n in range(40)], "text-classification",
               {"label": "label"}),
    "columns": ([{"id": n, "review": f"{LONG} {n}", "stars": n % 5} for n in range(40)], "text-classification",
                {"text": "review", "label": "stars"}),
    "numbers": ([{"text": f"{LONG} {n}", "score": n / 7 + 0.01} for n in range(40)], "text-classification",
                {"label": "score"}),
    "plain": ([{"body": f"{LONG} {n}"} for n in range(40)], "causal-lm", {"text": "body"}),
    "messages": ([{"messages": TALK} for _ in range(4)], "chat", {}),
    "alpaca": ([{"instruction": f"{LONG} {n}", "input": "", "output": f"{n} {LONG}"} for n in range(40)], "chat", {}),
    "answers": ([{"question": "who?", "context": "Ann.", "answers": {"text": ["Ann"], "answer_start": [0]}}] * 3,
                "question-answering", {}),
    "tags": ([{"tokens": ["a", "b"], "ner_tags": ["O", "B-X"]}] * 3, "token-classification",
             {"words": "tokens", "tags": "ner_tags"}),
    "summaries": ([{"document": f"{LONG} {n}", "summary": f"{n} {LONG}"} for n in range(40)], "seq2seq",
                  {"source": "document", "target": "summary"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_rows_are_taken_for_what_they_are_and_the_recipe_reads(tmp_path, name) -> None:
    rows, kind, options = FILES[name]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)

    assert main(["init", str(data), "--output", str(tmp_path / "my.yaml")]) == 0

    recipe = Recipe.read(tmp_path / "my.yaml")
    assert recipe.task.kind == kind
    assert {option: getattr(recipe.task, option) for option in options} == options
    assert recipe.adapter.r == 16
    text = (tmp_path / "my.yaml").read_text()
    assert "learning_rate, adapter.r, train.seed" in text
    assert f"{len(rows)} rows" in text


def test_a_csv_file_with_rare_labels_is_drafted_checked_and_trained(home, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    rows = tiny.sentences(80, 5)
    lines = ["text,label", *(f'"{row["text"]}",{row["label"]}' for row in [*rows[::2], *rows[1:12:2]])]
    (tmp_path / "films.csv").write_text("\n".join(lines))

    assert main(["init", "films.csv", "--model", str(home / "bert")]) == 0
    assert "class_weights: auto" in capsys.readouterr().out
    assert main(["check", "recipe.yaml", "--task.max_length", "32"]) == 0
    assert (
        main(
            [
                "train",
                "recipe.yaml",
                "--task.max_length",
                "32",
                "--train.num_train_epochs",
                "1",
                "--evaluate.reload",
                "same",
            ]
        )
        == 0
    )
    assert (tmp_path / "runs" / "films" / "scores.json").exists()


def test_images_are_drafted_by_their_folders_and_arrays(home, tmp_path) -> None:
    for number in range(6):
        folder = tmp_path / "images" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 30 * number, np.uint8)).save(folder / f"{number}.png")
    assert main(["init", str(tmp_path / "images"), "--output", str(tmp_path / "a.yaml")]) == 0
    assert Recipe.read(tmp_path / "a.yaml").task.kind == "image-classification"
    assert main(["init", str(home / "train.npz"), "--output", str(tmp_path / "b.yaml")]) == 0
    assert Recipe.read(tmp_path / "b.yaml").task.label == "label"
    np.savez(tmp_path / "alone.npz", pixels=np.zeros((5, 8, 8), np.uint8))
    assert main(["init", str(tmp_path / "alone.npz"), "--output", str(tmp_path / "c.yaml")]) == 0
    assert Recipe.read(tmp_path / "c.yaml").task.image == "pixels"


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("gone.csv", None, r"gone\.csv: no such file"),
        ("sheet.xlsx", b"x", r"\.xlsx is no known format.*Save the sheet as CSV"),
        ("empty.jsonl", b"", "holds no rows"),
        ("broken.json", b"{", "not JSON"),
        ("numbers.csv", b"a,b\n1,2\n3,4\n", "no column of text among a, b"),
        ("flat.npz", {"x": np.zeros(3)}, "no array of images"),
        ("broken.npz", b"PK nothing", r"broken\.npz"),
    ],
)
def test_what_fits_no_task_is_one_line_and_nothing_is_written(tmp_path, capsys, name, content, line) -> None:
    path = tmp_path / name
    if isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        path.write_bytes(content)

    assert main(["init", str(path), "--output", str(tmp_path / "my.yaml")]) == 2

    told = capsys.readouterr().err.strip().splitlines()
    assert re.search(line, told[-1]), told
    assert not list(tmp_path.glob("*my.yaml*"))


def test_a_recipe_that_is_there_is_not_written_over(tmp_path, capsys) -> None:
    data = tiny.write_rows(tmp_path / "rows.jsonl", tiny.sentences(20, 1))
    (tmp_path / "my.yaml").write_text("mine")

    assert main(["init", str(data), "--output", str(tmp_path / "my.yaml")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "my.yaml").read_text() == "mine"


def test_squads_own_layout_is_seen(tmp_path) -> None:
    paragraphs = [{"context": "Ann.", "qas": [{"id": "1", "question": "who?", "answers": []}]}]
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}))

    assert main(["init", str(tmp_path / "squad.json"), "--output", str(tmp_path / "my.yaml")]) == 0
    assert Recipe.read(tmp_path / "my.yaml").task.kind == "question-answering"
