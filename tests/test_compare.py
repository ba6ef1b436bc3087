"""Runs beside each other: what they cost, what they score, and which of them nothing beats on both."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from finetune import cli
from finetune.compressing import comparison, measuring
from finetune.compressing.comparison import compare, shown
from finetune.compressing.pareto import front
from finetune.compressing.prune import prune
from finetune.compressing.quantize import quantize
from finetune.errors import CheckFailed, UserError
from finetune.evaluation.paired import agreement, paired_scores


@pytest.fixture
def quick(monkeypatch):
    """Measure in this process, and for an instant."""
    monkeypatch.setattr(measuring, "SECONDS", 0.01)
    monkeypatch.setattr(comparison, "measured_apart", measuring.measure)


@pytest.fixture
def runs(run, tmp_path):
    original = run("text-classification", "lora", train={"output_dir": str(tmp_path / "original")})
    rounded = quantize(original, tmp_path / "rounded", embeddings=True)
    return original, rounded, prune(original, tmp_path / "pruned", feed_forward=0.5)


def test_runs_are_held_against_the_first_in_a_table_a_file_and_a_plot(runs, quick, home, tmp_path) -> None:
    found = compare(runs, tmp_path / "compared")

    first, rounded, pruned = found["runs"]
    base = home / "bert" / "model.safetensors"  # the adapter alone answers nothing
    assert first["bytes"] == (runs[0] / "adapter_model.safetensors").stat().st_size + base.stat().st_size
    assert rounded["bytes"] == (runs[1] / "model.safetensors").stat().st_size < first["bytes"]
    assert rounded["nonzero"] is None
    assert rounded["weights"] - pruned["weights"] == 2 * 32 * (32 + 1 + 32)  # layers x units x (in, bias, out)
    assert first["gap"] is None
    assert {*rounded["gap"]} == {"value", "low", "high", "n"}
    written = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert written == json.loads(json.dumps(found))
    table = shown(found)
    assert all(f"| {run.name} |" in table for run in runs)
    assert table in (tmp_path / "compared" / "comparison.md").read_text()
    with Image.open(tmp_path / "compared" / "pareto.png") as picture:
        assert len(picture.getcolors(maxcolors=10**6)) > 20


def test_a_row_is_timed_without_padding_and_all_of_them_together_with_it(runs, quick, monkeypatch) -> None:
    from finetune.tasks.text_classification import TextClassification

    shapes, inner = [], TextClassification.logits

    def watched(self, model, batch):
        shapes.append((tuple(batch["input_ids"].shape), int(batch["attention_mask"].sum())))
        return inner(self, model, batch)

    monkeypatch.setattr(TextClassification, "logits", watched)
    found = measuring.measure(runs[0])

    assert all(tokens == shape[1] for shape, tokens in shapes if shape[0] == 1)
    assert {shape[0] for shape, _ in shapes} == {1, found["batch"]["rows"]} == {1, 4}
    assert found["single"]["rows"] == 1
    assert len(found["batch"]["times"]) >= measuring.CALLS


def test_the_gap_of_two_runs_is_that_of_their_answers_on_the_same_rows(runs) -> None:
    import pyarrow.parquet as parquet

    gap = paired_scores(runs[1], runs[0], resamples=200)
    tables = [parquet.read_table(each / "predictions.parquet").to_pydict() for each in runs[:2]]
    right = [np.array([p == t for p, t in zip(table["prediction"], table["target"], strict=True)]) for table in tables]

    assert gap["accuracy"].value == pytest.approx(right[0].mean())
    assert gap["accuracy_gap"].value == pytest.approx(right[1].mean() - right[0].mean())
    logits = np.log(np.stack([tables[0]["p/negative"], tables[0]["p/positive"]], axis=1))
    targets = np.array([name == "positive" for name in tables[0]["target"]]).astype(int)
    expected = -np.log(softmax(logits, axis=1)[np.arange(len(targets)), targets]).mean()
    assert gap["nll"].value == pytest.approx(expected)
    assert agreement(runs[0], runs[0]) == 1.0


def test_runs_on_other_rows_have_no_gap(runs, run, home, tmp_path) -> None:
    other = run("text-classification", train={"output_dir": str(tmp_path / "other")},
                data={"test": str(home / "validation.jsonl"), "validation": None})  # fmt: skip

    assert paired_scores(other, runs[0], resamples=0) is None
    assert agreement(other, runs[0]) is None


def test_the_front_holds_what_nothing_beats_on_both() -> None:
    costs, scores = [4.0, 2.0, 3.0, 1.0, 2.0], [0.9, 0.8, 0.7, 0.5, 0.6]

    assert front(costs, scores) == [3, 1, 0]
    assert front(costs, scores, less_is_better=True) == [3]


def test_what_cannot_be_compared_is_refused_in_one_line(runs, run, tmp_path, quick, capsys) -> None:
    (tmp_path / "file").write_text("")
    for arguments, words in (
        ((runs[:1],), "one run cannot be compared"),
        (((*runs[:1], tmp_path / "orignal"),), "Did you mean original?"),
        ((runs[:2], tmp_path / "file"), "it is a file"),
    ):
        with pytest.raises(UserError) as caught:
            compare(*arguments)
        assert words in str(caught.value)
    language = run("causal-lm", train={"output_dir": str(tmp_path / "language")})
    with pytest.raises(UserError, match=r"only runs of one task .*language is causal-lm"):
        compare((runs[0], language))
    assert cli.main(["compare"]) == 2
    assert "RUN … is missing: finetune compare RUN …" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_measured_in_a_process_of_its_own_and_a_broken_one_is_one_line(runs) -> None:
    found = measuring.measured_apart(runs[0])

    assert found["memory"] > 0
    assert found["single"]["times"]
    (runs[1] / "model.safetensors").unlink()
    with pytest.raises(CheckFailed, match=r"cannot be measured: .*safetensors"):
        measuring.measured_apart(runs[1])
