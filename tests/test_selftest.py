"""`finetune selftest`: it passes where the code is right, fails where it is not, and says what it cannot check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from finetune.cli import main
from finetune.recipe import Recipe
from finetune.selftest import checks, selftest
from finetune.selftest.schedules import share

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture
def alone(monkeypatch):
    """Every check but that of two processes, which takes a launch."""
    monkeypatch.setattr(checks, "CHECKS", tuple(each for each in checks.CHECKS if each.__name__ != "processes"))


def only(monkeypatch, *names):
    monkeypatch.setattr(checks, "CHECKS", tuple(each for each in checks.CHECKS if each.__name__ in names))


def test_without_a_recipe_the_quickstarts_kind_passes_and_says_its_figures(alone, tmp_path, capsys) -> None:
    assert main(["selftest", "--json", str(tmp_path / "table.json")]) == 0

    said, told = capsys.readouterr().out, json.loads((tmp_path / "table.json").read_text())
    assert told["passed"]
    found = {each["name"]: each for each in told["checks"]}
    assert set(found) == {"accumulation", "padding", "packing", "evaluation", "resume", "seed", "schedule", "reload"}
    assert found["packing"]["result"] == "left out"
    assert "makes an input of one row" in found["packing"]["said"]
    assert [found[name]["difference"] for name in ("evaluation", "resume", "seed", "reload")] == [0.0] * 4
    for each in found.values():
        assert each["result"] == "left out" or each["difference"] <= each["tolerance"]
        assert f"{each['name']:<13}" in said
    assert any("generated rows" in note for note in told["notes"])


def test_a_mean_of_means_fails_accumulation_and_the_command_ends_with_3(monkeypatch, capsys) -> None:
    from finetune.training.trainer import Trainer

    def mean_of_means(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # the stock way
        total, outputs = self.task.loss(model, inputs)
        loss = total / float(self.task.weight(inputs)) / self.args.gradient_accumulation_steps
        self._losses.append(loss.detach())
        return (loss, outputs) if return_outputs else loss

    only(monkeypatch, "accumulation", "padding")
    monkeypatch.setattr(Trainer, "compute_loss", mean_of_means)

    assert main(["selftest"]) == 3
    printed = capsys.readouterr()
    assert "accumulation failed" in printed.err
    assert [line.split()[4] for line in printed.out.splitlines() if line.startswith(("accumulation", "padding"))] == [
        "FAILED",
        "ok",
    ]


def test_padding_that_is_seen_fails_padding(monkeypatch, capsys) -> None:
    from finetune.tasks import text_classification

    collate = text_classification._collate

    def blind(*args, **kwargs):
        batch = collate(*args, **kwargs)
        batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
        return batch

    only(monkeypatch, "padding")
    monkeypatch.setattr(text_classification, "_collate", blind)

    assert main(["selftest"]) == 3
    assert "padding failed" in capsys.readouterr().err


def test_a_seed_that_is_not_used_and_a_resume_that_forgets_fail(monkeypatch, capsys) -> None:
    from finetune.training.trainer import Trainer

    only(monkeypatch, "resume")
    monkeypatch.setattr(Trainer, "_load_optimizer_and_scheduler", lambda self, checkpoint: None)
    assert main(["selftest"]) == 3
    assert "resume failed" in capsys.readouterr().err


def test_a_schedule_that_another_formula_gives_fails(monkeypatch, capsys) -> None:
    only(monkeypatch, "schedule")
    monkeypatch.setattr(checks, "share", lambda kind, *given: share("cosine", *given))

    assert main(["selftest"]) == 3
    assert "schedule failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("linear", {}), ("constant", {}), ("constant_with_warmup", {}), ("cosine", {}), ("inverse_sqrt", {}),
        ("cosine_with_min_lr", {"min_lr": 1e-4}), ("polynomial", {"power": 2.0}),
    ],
)  # fmt: skip
def test_the_formulas_are_those_of_the_library(kind, options) -> None:
    from transformers import get_scheduler

    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = get_scheduler(kind, optimiser, 3, 12, scheduler_specific_kwargs=options)
    for step in range(12):
        assert share(kind, step, 12, 3, 1e-3, options) == pytest.approx(schedule.get_last_lr()[0] / 1e-3, abs=1e-12)
        optimiser.step()
        schedule.step()


def test_packing_is_checked_where_the_task_packs_and_a_leak_between_texts_fails(sections, monkeypatch, capsys) -> None:
    only(monkeypatch, "packing")
    made = sections("causal-lm", task={"pack": True, "block_size": 64})
    found = selftest(Recipe.from_dict(made))[0]
    assert found.result == "ok"
    assert found.difference is not None

    monkeypatch.setattr("finetune.training.batching.block_causal_mask", lambda *_: None)
    monkeypatch.setattr("finetune.tasks.causal_lm.CausalLM.probe", lambda *_: None)  # it would refuse before
    monkeypatch.setattr(
        "finetune.tasks.causal_lm.CausalLM._forward", lambda self, model, batch: model(batch["input_ids"])
    )
    with pytest.raises(checks.CheckFailed, match="packing failed"):
        selftest(Recipe.from_dict(made))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["selftest", "--json", "nowhere/table.json"], "nowhere is no folder"),
        (["selftest", "a.yaml", "b.yaml"], "one argument too many"),
        (["selftest", "--train.seed", "2"], "--train.seed is an option of a recipe"),
        (["selftest", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(words, line, capsys) -> None:
    assert main(words) == 2
    assert line in capsys.readouterr().err


def test_a_recipes_own_broken_rows_are_refused_as_training_would(sections, write_recipe, tmp_path, capsys) -> None:
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": 1}\n{"text": 5, "label": 0}\n')
    made = sections("text-classification", data={"train": str(tmp_path / "broken.jsonl")})

    assert main(["selftest", str(write_recipe(made))]) == 2
    assert "broken.jsonl:2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_passes(path, monkeypatch, contract) -> None:
    monkeypatch.chdir(ROOT)
    found = selftest(Recipe.read(path))

    assert {each.name for each in found} == {each.__name__ for each in checks.CHECKS}
    done = [each for each in found if each.result == "ok"]
    assert {"processes", "accumulation", "padding", "evaluation", "resume", "seed", "reload"} <= {e.name for e in done}
    apart = {each.name: each.difference for each in done}
    contract(
        "R8", recipes=1, largest_difference=float(apart["accumulation"]), of_two_processes=float(apart["processes"])
    )
    contract("R9", recipes=1, largest_difference=float(apart["padding"]))
    contract("R3", recipes=1, largest_difference=float(apart["resume"]))
