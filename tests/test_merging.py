"""`finetune merge`: a run of its own that answers as the run with its adapter did, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from finetune import artefact
from finetune.agreement import gap
from finetune.cli import main
from finetune.errors import CheckFailed, UserError
from finetune.merging import merge
from finetune.reloading import load_run, verify
from finetune.reuse import evaluate, predict

LORA = {"peft_type": "LORA", "r": 4, "init_lora_weights": False}  # an update from the first step on


@pytest.fixture(params=["text-classification", "causal-lm"])
def adapted(request: Any, run: Any) -> Path:
    return run(request.param, "lora", adapter=LORA)


def scores(folder: Path) -> Any:
    return json.loads((folder / artefact.SCORES).read_text(encoding="utf-8"))


def test_a_merged_run_answers_and_scores_as_the_run_with_its_adapter(adapted: Path, tmp_path: Path):
    merged = merge(adapted, tmp_path / "merged")

    assert not (merged / "adapter_config.json").exists()
    assert verify(merged).same
    before, after = scores(adapted), scores(merged)
    assert after["test"].keys() == before["test"].keys()
    for name, score in before["test"].items():
        assert after["test"][name]["value"] == pytest.approx(score["value"], rel=1e-5), name
    original = after["baselines"]["original"]
    assert {name: score for name, score in original.items() if not name.endswith("_gap")} == before["test"]
    evaluated = evaluate(merged)["test"]
    assert {name: score.value for name, score in evaluated.items()} == {
        name: score["value"] for name, score in after["test"].items()
    }
    origin = json.loads((merged / artefact.ORIGIN).read_text(encoding="utf-8"))
    assert origin["made_by"] == "merge"
    assert origin["gap"]["relative"] <= 1e-5
    assert origin["gap"]["same"] == 1.0


def test_a_merged_run_needs_neither_base_nor_adapter(run: Any, home: Path, tmp_path: Path):
    base = tiny.save_encoder(tmp_path / "base")
    adapted = run("text-classification", "lora", model={"path": str(base)})
    file = tiny.write_rows(tmp_path / "new.jsonl", tiny.sentences(6, 9))
    expected = predict(adapted, file)
    merged = merge(adapted)
    assert merged == adapted.with_name("run-merged")
    for folder in (base, adapted):
        folder.rename(folder.with_name(f"{folder.name}-gone"))

    given = predict(merged, file)

    assert given["prediction"] == expected["prediction"]
    assert load_run(merged)[0].adapter is None


def test_the_weights_of_a_merged_run_are_base_plus_scaled_product(run: Any, home: Path, tmp_path: Path):
    adapted = run("text-classification", "lora", adapter={**LORA, "lora_alpha": 6, "target_modules": ["query"]})
    merged = load_file(merge(adapted, tmp_path / "merged") / "model.safetensors")
    base, adapter = load_file(home / "bert" / "model.safetensors"), load_file(adapted / "adapter_model.safetensors")

    for layer in (0, 1):
        name = f"encoder.layer.{layer}.attention.self.query"
        a, b = (adapter[f"base_model.model.bert.{name}.lora_{side}.weight"] for side in "AB")
        torch.testing.assert_close(merged[f"bert.{name}.weight"], base[f"{name}.weight"] + 6 / 4 * b @ a)
    assert torch.equal(merged["classifier.weight"], adapter["base_model.model.classifier.weight"])


def test_a_merge_that_would_answer_otherwise_is_refused_and_nothing_is_written(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapted = run("text-classification", "lora", adapter=LORA)
    file = adapted / "adapter_model.safetensors"
    other = {name: weight * 1.5 if "lora_B" in name else weight for name, weight in load_file(file).items()}
    save_file(other, file, metadata={"format": "pt"})

    with pytest.raises(CheckFailed, match=r"merged, it would answer otherwise: logits differ by up to .* tolerance"):
        merge(adapted, tmp_path / "merged")
    assert not list(tmp_path.glob("*merged*"))

    assert main(["merge", str(adapted), "--output", str(tmp_path / "merged"), "--tolerance", "100"]) == 0
    assert "Merged: logits differ by up to" in capsys.readouterr().out


def test_what_cannot_be_merged_is_one_line(run: Any, sections: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole = run("text-classification")
    with pytest.raises(UserError, match="holds no adapter"):
        merge(whole)
    with pytest.raises(UserError, match=r"--output: .* is there already"):
        merge(whole, whole)
    assert main(["merge", str(whole), "--tolerance", "small"]) == 2
    assert "--tolerance is small; it must be a number." in capsys.readouterr().err


def test_rows_that_are_gone_leave_a_merged_run_unscored_and_say_so(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    test = tiny.write_rows(tmp_path / "mine.jsonl", tiny.sentences(8, 5))
    adapted = run("text-classification", "lora", data={"test": str(test)})
    test.unlink()

    merged = merge(adapted, tmp_path / "merged")

    assert "Not scored: data.test" in capsys.readouterr().out
    assert scores(merged) == {"baselines": {}}
    assert verify(merged).same


def test_prompts_have_no_place_in_the_weights(run: Any, tmp_path: Path):
    adapted = run("causal-lm", adapter={"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4})
    with pytest.raises(UserError, match=r"model.path: .*PROMPT_TUNING learned tokens"):
        merge(adapted, tmp_path / "merged")


def test_a_gap_is_measured_by_the_largest_logit_and_counts_equal_answers():
    from finetune.tasks.text_classification import TextClassification

    one, other = torch.tensor([[4.0, 1.0], [0.0, 1.0]]), torch.tensor([[8.0, 1.0], [2.0, 1.0]])

    found = gap(TextClassification(problem="single"), [(one, other)])
    assert (found.rows, found.largest, found.relative, found.same) == (2, 4.0, 0.5, 0.5)
    assert gap(TextClassification(problem="regression"), [(one, other)]).same is None
    assert gap(TextClassification(problem="multi"), [(one - 0.5, other - 0.5)]).same == 0.5
