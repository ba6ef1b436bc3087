"""Several runs that answer together: means, votes, agreement, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from datasets import Dataset

from finetune.cli import main
from finetune.ensembles import predict, together
from finetune.errors import UserError
from finetune.reuse import predict as predict_alone


def table(p: list[list[float]], labels: str = "abc") -> Dataset:
    asked = {"row_id": [f"f:{n}" for n in range(len(p))], "text": ["x"] * len(p), "novelty": [0.5] * len(p)}
    return Dataset.from_dict(asked | {f"p/{name}": [row[n] for row in p] for n, name in enumerate(labels)})


@pytest.fixture
def seeds(run: Any, tmp_path: Path) -> Any:
    """Return a function that trains one recipe with several seeds, or with other options, and returns the runs."""

    def train(kind: str, *names: str, **changes: dict[str, Any]) -> list[Path]:
        return [
            run(kind, **{**changes, "train": {"output_dir": str(tmp_path / name), "seed": number}})
            for number, name in enumerate(names, 1)
        ]

    return train


def test_runs_with_other_bases_and_tokenizers_give_the_mean_of_their_probabilities(
    seeds: Any, run: Any, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    runs = seeds("text-classification", "one", "other")
    scratch = {"path": str(tiny.save_encoder(tmp_path / "roberta", "roberta"))}
    runs.append(run("text-classification", model=scratch, train={"output_dir": str(tmp_path / "far")}))
    file, output = home / "test.jsonl", tmp_path / "answers.jsonl"

    assert main(["predict", *map(str, runs), str(file), "--output", str(output)]) == 0

    alone = [predict_alone(each, file) for each in runs]
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert set(found[0]) == {*alone[0].column_names, "agreement"}
    for label in ("negative", "positive"):
        mean = np.mean([each[f"p/{label}"][:] for each in alone], axis=0)
        np.testing.assert_allclose([row[f"p/{label}"] for row in found], mean, rtol=1e-12)
    for row, *each in zip(found, *alone, strict=True):
        assert row["prediction"] == max(("negative", "positive"), key=lambda label: row[f"p/{label}"])
        assert row["score"] == row[f"p/{row['prediction']}"]
        assert row["agreement"] == np.mean([other["prediction"] == row["prediction"] for other in each])
        assert row["text"] == each[0]["text"]

    capsys.readouterr()
    assert main(["predict", *map(str, runs), str(file), "--combine", "vote"]) == 0
    voted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row, *each in zip(voted, *alone, strict=True):
        said = [other["prediction"] for other in each]
        assert row["prediction"] == max(set(said), key=said.count)
        assert row["agreement"] > 0.5

    for words, said in (
        ([str(runs[0]), str(file), "--combine", "vote"], "--combine is for several runs"),
        ([str(runs[0]), str(runs[0]), str(file)], "is given twice"),
        ([*map(str, runs)], "is a run: the file whose rows are answered comes last"),
        ([str(runs[0]), str(runs[1]), str(file), "--combine", "vot"], "known: mean, vote. Did you mean vote?"),
        ([str(runs[0]), str(file), "train.seed=1"], "is one argument too many for finetune predict."),
        ([str(runs[0]), str(runs[1]), str(file), "--output", "a.txt"], "should end in .jsonl"),
        ([str(runs[0]), str(runs[1]), str(file), "--output", str(file)], "is read by this command"),
        ([str(runs[0]), str(file), "--output", str(file)], "is read by this command"),
        ([str(runs[0]), str(tmp_path / "on"), str(file)], "does not exist. Did you mean one?"),
    ):  # fmt: skip
        assert main(["predict", *words]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert len(told.splitlines()) == 1


@pytest.mark.parametrize("kind", ["text-classification", "image-classification"])
def test_one_run_alone_is_itself(run: Any, home: Path, kind: str):
    alone = predict_alone(run(kind), home / ("test.jsonl" if kind.startswith("text") else "test.npz"))
    labels = [name[2:] for name in alone.column_names if name.startswith("p/")]

    for combine in ("mean", "vote"):
        assert together([alone], labels, "single", combine).remove_columns("agreement")[:] == alone[:]
        assert set(together([alone] * 3, labels, "single", combine)["agreement"][:]) == {1.0}


def test_several_labels_and_numbers_are_means_too(run: Any, home: Path, tmp_path: Path):
    rows = [{**row, "label": [row["label"], "text"]} for row in tiny.sentences(32, 1)]
    numbers = [{**row, "label": len(row["text"]) / 7} for row in tiny.sentences(32, 1)]
    for name, made in (("multi", rows), ("regression", numbers)):
        file = tiny.write_rows(tmp_path / f"{name}.jsonl", made)
        data = dict.fromkeys(("train", "validation", "test"), str(file))
        runs = [
            run("text-classification", data=data, train={"output_dir": str(tmp_path / f"{name}{seed}"), "seed": seed})
            for seed in (1, 2)
        ]
        alone, found = [predict_alone(each, home / "test.jsonl") for each in runs], predict(runs, home / "test.jsonl")
        for column in found.column_names:
            if column.startswith("p/") or (name == "regression" and column == "prediction"):
                mean = np.mean([each[column][:] for each in alone], axis=0)
                np.testing.assert_allclose(found[column][:], mean, rtol=1e-12)
        if name == "regression":
            values = np.array([each["prediction"][:] for each in alone])
            np.testing.assert_allclose(found["spread"][:], np.abs(values[0] - values[1]) / 2**0.5, atol=1e-12)
            with pytest.raises(UserError, match="--combine vote is for labels"):
                predict(runs, home / "test.jsonl", combine="vote")
        else:
            same = together([alone[0]], ["negative", "positive", "text"], "multi", "vote").remove_columns("agreement")
            assert same["prediction"][:] == alone[0]["prediction"][:]
            np.testing.assert_allclose(same["score"][:], alone[0]["score"][:], rtol=1e-6)


def test_votes_count_heads_and_ties_go_to_the_higher_mean():
    tables = [table(p) for p in ([[0.4, 0.3, 0.3], [0.6, 0.4, 0.0]], [[0.4, 0.35, 0.25], [0.1, 0.9, 0.0]],
                                 [[0.0, 0.0, 1.0], [0.1, 0.3, 0.6]])]  # fmt: skip
    voted, mean = (together(tables, "abc", "single", way) for way in ("vote", "mean"))

    assert voted["prediction"][:] == ["a", "b"]  # two voices against one; one each, and b is the likeliest
    assert mean["prediction"][:] == ["c", "b"]
    np.testing.assert_allclose(voted["agreement"][:], [2 / 3, 1 / 3])
    np.testing.assert_allclose(mean["agreement"][:], [1 / 3, 1 / 3])
    np.testing.assert_allclose(voted["score"][:], [0.8 / 3, 1.6 / 3])
    assert voted.column_names == ["row_id", "text", "prediction", "score", "p/a", "p/b", "p/c", "agreement"]

    several = together([table([[0.9, 0.6, 0.4]]), table([[0.2, 0.6, 0.4]])], "abc", "multi", "vote")
    assert several["prediction"][:] == [["a", "b"]]  # a has one voice of two, and a mean of 0.55
    assert several["agreement"][:] == [0.5]
    np.testing.assert_allclose(several["score"][:], [0.55 * 0.6 * 0.6])


def test_runs_that_do_not_go_together_are_refused_in_a_line(run: Any, home: Path, tmp_path: Path):
    def made(name: str, kind: str = "text-classification", **changes: dict[str, Any]) -> Path:
        return run(kind, train={"output_dir": str(tmp_path / name)}, **changes)

    rows = [{**row, "label": "glad" if row["label"] == "positive" else "sad"} for row in tiny.sentences(32, 1)]
    numbers = [{**row, "label": len(row["text"]) / 7} for row in tiny.sentences(32, 1)]
    one, file, files = made("one"), home / "test.jsonl", ("train", "validation", "test")
    glad, number = (
        made(name, data=dict.fromkeys(files, str(tiny.write_rows(tmp_path / f"{name}.jsonl", each))))
        for name, each in (("glad", rows), ("number", numbers))
    )
    turned = made("turned", task={"labels": ["positive", "negative"]})
    writer = made("writer", "causal-lm")
    images = made("images", "image-classification")
    for other, said in (
        (glad, r"has other labels \(glad, sad\) than .*one \(negative, positive\)\."),
        (turned, "has the same labels in another order"),
        (number, "has task.problem regression, and .*one has single"),
        (writer, "runs of task.kind causal-lm do not answer together"),
        (images, "has task.kind image-classification, and .*one has text-classification"),
    ):
        with pytest.raises(UserError, match=said):
            predict([one, other], file)
