"""Predicting on files as people have them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from datasets import Dataset

from finetune import artefact
from finetune.cli import main
from finetune.data import read_rows
from finetune.data.options import DataOptions
from finetune.errors import UserError
from finetune.reuse import evaluate, predict, refuse_unwritable
from finetune.task import Columns


def test_empty_cells_of_a_label_column_are_no_labels(tmp_path: Path):
    for name, rows in (("all.csv", "a,\nb,\n"), ("some.csv", "a,x\nb, \n"), ("numbers.csv", "a,1\nb,\n")):
        (tmp_path / name).write_text("text,label\n" + rows, encoding="utf-8")
        read = read_rows(str(tmp_path / name), DataOptions(), Columns(texts=("text",), label="label"))
        assert read.column_names == ["text", "row_id"], name
        assert len(read) == 2


def test_several_labels_of_a_row_stand_in_one_cell_of_a_csv(tmp_path: Path):
    table = Dataset.from_dict({"row_id": ["f:1", "f:2"], "prediction": [["a", "b"], []], "score": [0.5, 0.25]})
    artefact.write_table(table, tmp_path / "answers.csv")

    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == ["a|b", ""]


def test_predict_takes_columns_by_other_names_and_says_where_it_cannot_write(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, output = run("text-classification"), tmp_path / "answers.jsonl"
    file = tiny.write_rows(tmp_path / "new.jsonl", [{"review": "good film"}, {"review": "dull film"}])

    assert main(["predict", str(folder), str(file), "--data.columns", "text: review", "--output", str(output)]) == 0
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == ["good film", "dull film"]
    capsys.readouterr()

    assert main(["predict", str(folder), str(tmp_path / "gone.jsonl")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"finetune: {tmp_path}/gone.jsonl: no such file.")

    for wrong in (tmp_path / "no" / "answers.jsonl", tmp_path / "no.jsonl" / "x.csv"):
        assert main(["predict", str(folder), str(file), "--output", str(wrong)]) == 2
        said = capsys.readouterr().err
        assert "--output" in said
        assert len(said.splitlines()) == 1


def test_a_run_that_was_told_when_to_evaluate_is_evaluated_and_predicts(run: Any, home: Path):
    told = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    folder = run("text-classification", train={**told, "early_stopping_patience": 3})

    assert evaluate(folder)["test"]["accuracy"].n == 22
    assert len(predict(folder, home / "test.jsonl")) == 22


def test_rows_that_share_an_input_are_all_answered(run, home):
    trained = run("causal-lm", task={"pack": True, "block_size": 64})

    assert 0 < len(predict(trained, home / "test.jsonl")) < 22  # blocks, not rows


@pytest.mark.parametrize("rows", ["a.jsonl", "*.jsonl", "**/a.jsonl", "."])
def test_answers_are_not_written_over_rows_that_a_name_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str
):
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "mine"}\n')
    Path("link.jsonl").symlink_to("a.jsonl")

    for output in ("a.jsonl", "link.jsonl"):
        with pytest.raises(UserError, match=f"^--output: {output} is read by this command"):
            refuse_unwritable(Path(output), Path(rows))
    refuse_unwritable(Path("b.jsonl"), Path(rows))


def test_an_evaluation_with_other_options_stands_beside_the_first(plain: Any, tmp_path: Path):
    folder = Path(shutil.copytree(plain("text-classification"), tmp_path / "run"))
    shutil.rmtree(folder / "evaluations", ignore_errors=True)

    for resamples in (100, 200, 100):
        evaluate(folder, {"evaluate.resamples": resamples})
    evaluate(folder)

    found = [artefact.read_json(each) for each in sorted((folder / "evaluations").glob("*.json"))]
    assert sorted(str(each.get("overrides")) for each in found) == [
        "None", "{'evaluate.resamples': '100'}", "{'evaluate.resamples': '200'}",
    ]  # fmt: skip
