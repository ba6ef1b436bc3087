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


def test_where_an_accelerator_is_seen_both_sides_of_a_check_are_computed_without_it(monkeypatch) -> None:
    from finetune import reloading
    from finetune.training.trainer import Trainer

    without, make, load = {"trained or scored": [], "reloaded": []}, Trainer.__init__, reloading.load_run

    def made(self, *given, **named):
        make(self, *given, **named)
        without["trained or scored"].append(self.args.use_cpu)

    def loaded(*given):
        found = load(*given)
        without["reloaded"].append(found[0].train.use_cpu)
        return found

    monkeypatch.setattr("finetune.training.options.has_accelerator", lambda: True)
    monkeypatch.setattr(Trainer, "__init__", made)
    monkeypatch.setattr(reloading, "load_run", loaded)

    only(monkeypatch, "accumulation", "evaluation", "reload")
    assert [each.result for each in selftest()] == ["ok"] * 3
    assert {name: set(each) for name, each in without.items()} == {"trained or scored": {True}, "reloaded": {True}}


def test_a_seed_of_which_nothing_is_drawn_is_no_false_alarm(sections, monkeypatch) -> None:
    only(monkeypatch, "seed")
    last = {"train_sampling_strategy": "sequential", "seed": 2**32 - 1}
    found = selftest(Recipe.from_dict(sections("causal-lm", train=last)))

    assert found[0].result == "ok"
    assert "another has the same: nothing is drawn" in found[0].said


def test_no_rate_above_0_leaves_the_schedule_nothing_to_check(sections, monkeypatch) -> None:
    only(monkeypatch, "schedule")
    found = selftest(Recipe.from_dict(sections("text-classification", train={"learning_rate": 0.0})))

    assert (found[0].result, found[0].said) == ("left out", "no rate is above 0")


def test_a_game_of_many_critic_steps_is_long_enough_to_be_broken_off(sections, monkeypatch) -> None:
    only(monkeypatch, "resume")
    game = {"loss": "wgan-gp", "diffaugment": [], "r1_gamma": None}
    found = selftest(Recipe.from_dict(sections("image-gan", task=game)))

    assert (found[0].result, found[0].difference) == ("ok", 0.0)


def test_a_selftest_that_is_stopped_says_that_nothing_of_it_is_kept(monkeypatch, capsys) -> None:
    from finetune.training.stopping import Wishes

    only(monkeypatch, "resume")
    monkeypatch.setattr(Wishes, "own", lambda self: [float(bool(setattr(self, "signal", 15) or 1)), 0.0])

    assert main(["selftest"]) == 143
    said = capsys.readouterr().err
    assert "selftest: stopped by SIGTERM; nothing of it is kept, and the same command starts it anew." in said


def test_a_recipes_own_conversations_are_learned(sections, monkeypatch, capsys) -> None:
    only(monkeypatch, "padding", "schedule")
    found = selftest(Recipe.from_dict(sections("chat")))

    assert [each.result for each in found] == ["ok"] * 2
    assert "train, 11 of 18 validation, 7 of 22 test rows of the recipe's own" in capsys.readouterr().out


def test_every_option_that_is_not_tried_is_said(sections, home, tmp_path) -> None:
    from finetune.selftest.shrinking import shrunk

    plain = sections("text-classification")
    given = sections(
        "text-classification",
        data={"augment": {"contextual": 0.3, "masked_lm": str(home / "gone")}},
        model={"layers": 1},
        train={"bf16": True, "nan_budget": 3, "dataloader_drop_last": True, "save_strategy": "epoch"},
    )
    notes = []
    for place, made in enumerate((plain, given)):
        (tmp_path / str(place)).mkdir()
        notes.append(
            [each for each in shrunk(Recipe.from_dict(made), tmp_path / str(place)).notes if "left out" in each]
        )

    named = [sorted(each.split(": ", 1)[1].split("; ")[0].split(", ")) for each in notes[1]]
    assert notes[0] == []
    assert named == [["data.augment", "model.layers", "train.bf16", "train.dataloader_drop_last", "train.nan_budget"]]


def test_private_training_is_trained_so_and_what_nobody_can_repeat_is_left_out(sections, monkeypatch) -> None:
    pytest.importorskip("opacus")
    from finetune.training.private import PrivateTrainer

    trained, train = [], PrivateTrainer.train
    monkeypatch.setattr(PrivateTrainer, "train", lambda self, **given: (trained.append(self), train(self, **given))[1])
    only(monkeypatch, "evaluation", "resume", "seed", "schedule", "reload", "accumulation")
    found = selftest(Recipe.from_dict(sections("text-classification", train={"dp": {"epsilon": 8}})))

    assert {each.name: each.result for each in found} == {
        "accumulation": "ok", "evaluation": "ok", "resume": "left out", "seed": "left out", "schedule": "ok",
        "reload": "ok",
    }  # fmt: skip
    assert trained


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
