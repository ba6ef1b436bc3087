"""The same steps, however they are cut: for every task in the table, whole and with LoRA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from same_weights import assert_same_weights

from finetune.tasks import TASKS

every_cell = pytest.mark.parametrize(("kind", "adapter"), tiny.CELLS)
OFTEN = [cell for cell in tiny.CELLS if cell[1] == "whole" or cell[0] in ("text-classification", "causal-lm")]
every_cell_often_or_slow = pytest.mark.parametrize(
    ("kind", "adapter"), [cell if cell in OFTEN else pytest.param(*cell, marks=pytest.mark.slow) for cell in tiny.CELLS]
)
FRESH = ("text-classification",)  # the others under slow: 5 to 10 s each


def scores(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())


def test_every_task_of_the_table_has_a_tiny_recipe() -> None:
    assert set(tiny.TASKS) == set(TASKS)


@every_cell
def test_accumulated_steps_take_the_step_of_one_batch(plain, run, weights, tmp_path, kind, adapter) -> None:
    whole = plain(kind, adapter)
    parts = run(kind, adapter, train={"output_dir": str(tmp_path / "parts"), "per_device_train_batch_size": 4,
                                      "gradient_accumulation_steps": 4})  # fmt: skip

    assert_same_weights(weights(parts), weights(whole))
    losses = [[row["loss"] for row in json.loads((each / "history.json").read_text()) if "loss" in row]
              for each in (whole, parts)]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@every_cell
def test_training_moves_the_weights(plain, run, weights, tmp_path, kind, adapter) -> None:
    still = run(kind, adapter, train={"output_dir": str(tmp_path / "still"), "learning_rate": 0.0})
    moved = plain(kind, adapter)

    before, after = weights(still), weights(moved)
    assert any(not torch.equal(before[name], after[name]) for name in before)


@every_cell
def test_scores_do_not_depend_on_the_evaluation_batch(plain, kind, adapter) -> None:
    from finetune.reuse import evaluate

    trained = plain(kind, adapter)
    found = [evaluate(trained, {"train.per_device_eval_batch_size": size})["test"] for size in (1, 3, 16)]

    for other in found[1:]:
        assert {name: score.n for name, score in other.items()} == {name: score.n for name, score in found[0].items()}
        assert {name: score.value for name, score in other.items()} == pytest.approx(
            {name: score.value for name, score in found[0].items()}, rel=1e-5, abs=1e-6
        )


@every_cell
def test_a_saved_run_comes_back_with_the_same_scores(plain, kind, adapter) -> None:
    from finetune.reuse import evaluate, load_run

    trained = plain(kind, adapter)
    again = evaluate(trained)["test"]

    assert {name: score.value for name, score in again.items()} == pytest.approx(
        {name: score["value"] for name, score in scores(trained)["test"].items()}, rel=1e-6
    )
    recipe, _, _ = load_run(trained)
    assert recipe.task.kind == kind


@pytest.mark.parametrize(
    "kind", [each if each in FRESH else pytest.param(each, marks=pytest.mark.slow) for each in TASKS]
)
def test_a_run_reloads_in_a_fresh_process_with_the_same_logits(run, kind) -> None:
    adapter = next(adapter for each, adapter in reversed(tiny.CELLS) if each == kind)
    trained = run(kind, adapter, evaluate={"reload": "fresh"})

    verdict = json.loads((trained / "reload.json").read_text())
    assert verdict == {"same": True, "max_difference": 0.0, "rows": 4, "process": "fresh"}


@every_cell
def test_one_seed_gives_one_run(plain, run, weights, tmp_path, kind, adapter) -> None:
    first, second = plain(kind, adapter), run(kind, adapter, train={"output_dir": str(tmp_path / "second")})

    assert_same_weights(weights(first), weights(second), rtol=0, atol=0)


def test_a_run_leaves_no_pickle(run, tmp_path) -> None:
    trained = run("text-classification", train={"save_strategy": "epoch"})

    left = {path.suffix for path in trained.rglob("*") if path.is_file()}
    assert left <= {".json", ".yaml", ".safetensors", ".parquet", ".html", ".txt", ".md", ".jinja"}


def test_a_run_with_an_adapter_leaves_no_blank_card(run) -> None:
    cards = list(run("text-classification", "lora").rglob("README.md"))

    assert len(cards) == 1  # ours: PEFT's is a form that asks for more information
    assert "More Information Needed" not in cards[0].read_text(encoding="utf-8")
