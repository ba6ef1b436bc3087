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


def test_a_resume_that_forgets_the_optimiser_fails(monkeypatch, capsys) -> None:
    from finetune.training.trainer import Trainer

    only(monkeypatch, "resume")
    monkeypatch.setattr(Trainer, "_load_optimizer_and_scheduler", lambda self, checkpoint: None)
    assert main(["selftest"]) == 3
    assert "resume failed" in capsys.readouterr().err


def test_a_resume_that_forgets_what_no_weight_shows_fails(monkeypatch, capsys) -> None:
    from finetune.training.checkpointed import Checkpointed

    go_on = Checkpointed._go_on

    def forgetful(self):
        go_on(self)
        self._total_loss_scalar = 0.0

    only(monkeypatch, "resume")
    monkeypatch.setattr(Checkpointed, "_go_on", forgetful)
    assert main(["selftest"]) == 3
    assert "the last checkpoints differ in process-0.json" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["not used", "not set"])
def test_a_seed_that_is_not_used_or_not_set_fails(monkeypatch, capsys, broken) -> None:
    import transformers

    from finetune.training import trainer

    set_seed, dealer = transformers.set_seed, trainer.Dealer
    only(monkeypatch, "seed")
    if broken == "not used":
        monkeypatch.setattr(trainer, "Dealer", lambda **given: dealer(**{**given, "seed": 0}))
        monkeypatch.setattr(transformers, "set_seed", lambda _: set_seed(0))
    else:
        monkeypatch.setattr(transformers, "set_seed", lambda _: None)

    assert main(["selftest"]) == 3
    assert ("end with the same weights" in capsys.readouterr().out) is (broken == "not used")


def test_a_seed_of_which_nothing_is_drawn_is_no_false_alarm(sections, monkeypatch) -> None:
    only(monkeypatch, "seed")
    last = {"train_sampling_strategy": "sequential", "seed": 2**32 - 1}
    found = selftest(Recipe.from_dict(sections("causal-lm", train=last)))

    assert found[0].result == "ok"
    assert "another has the same: nothing is drawn" in found[0].said


def test_a_run_that_is_scored_with_other_weights_than_it_was_trained_to_fails_evaluation(monkeypatch, capsys) -> None:
    from finetune import reuse

    load = reuse.load_run

    def other(*given):
        recipe, model, processor = load(*given)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.5)
        return recipe, model, processor

    only(monkeypatch, "evaluation")
    monkeypatch.setattr(reuse, "load_run", other)  # the same wrong ones, each time

    assert main(["selftest"]) == 3
    assert "evaluation failed" in capsys.readouterr().err


def test_a_run_that_is_saved_otherwise_than_it_was_trained_fails_reload(monkeypatch, capsys) -> None:
    from finetune.training.trainer import Trainer

    save = Trainer.save_model

    def otherwise(self, *given, **options):
        kept = {name: each.clone() for name, each in self.model.state_dict().items()}
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.mul_(1.5)
        save(self, *given, **options)
        self.model.load_state_dict(kept)

    only(monkeypatch, "reload")
    monkeypatch.setattr(Trainer, "save_model", otherwise)

    assert main(["selftest"]) == 3
    assert "reload failed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_that_learns_otherwise_than_two_fails_processes(monkeypatch, capsys) -> None:
    from finetune.training.trainer import Trainer

    loss = Trainer.compute_loss
    only(monkeypatch, "processes")
    assert main(["selftest"]) == 0

    monkeypatch.setattr(Trainer, "compute_loss", lambda *given, **named: loss(*given, **named) * 1.01)  # of this one
    assert main(["selftest"]) == 3
    assert "processes failed" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["text-classification", "image-gan"])
def test_rates_that_do_not_follow_the_schedule_fail(sections, monkeypatch, kind) -> None:
    import transformers

    made = sections(kind, train={"lr_scheduler_type": "linear"})
    only(monkeypatch, "schedule")
    assert selftest(Recipe.from_dict(made))[0].result == "ok"

    get = transformers.get_scheduler
    for place in ("transformers.trainer.get_scheduler", "transformers.get_scheduler")[kind == "image-gan" :]:
        monkeypatch.setattr(
            place, lambda *given, **named: get("constant", named["optimizer"])
        )  # of a GAN, one player's
    with pytest.raises(checks.CheckFailed, match="schedule failed"):
        selftest(Recipe.from_dict(made))


def test_no_rate_above_0_leaves_the_schedule_nothing_to_check(sections, monkeypatch) -> None:
    only(monkeypatch, "schedule")
    found = selftest(Recipe.from_dict(sections("text-classification", train={"learning_rate": 0.0})))

    assert (found[0].result, found[0].said) == ("left out", "no rate is above 0")


def test_a_game_of_many_critic_steps_is_long_enough_to_be_broken_off(sections, monkeypatch) -> None:
    only(monkeypatch, "resume")
    game = {"loss": "wgan-gp", "diffaugment": [], "r1_gamma": None}
    found = selftest(Recipe.from_dict(sections("image-gan", task=game)))

    assert (found[0].result, found[0].difference) == ("ok", 0.0)


def test_a_check_that_breaks_is_told_in_full_and_the_others_go_on(monkeypatch, tmp_path, capsys) -> None:
    def broken(stage):
        raise AttributeError("no such thing")

    def diverged(stage):
        raise checks.CheckFailed(f"step 3: a:1 (all in {stage.folder}/own/nonfinite.json). Look at it.")

    def infinite(stage):
        return checks.Found(float("inf"), 0.0, "two things")

    def right(stage):
        return checks.Found(0.0, 0.0, "one thing")

    monkeypatch.setattr(checks, "CHECKS", (broken, diverged, infinite, right))
    assert main(["selftest", "--json", str(tmp_path / "table.json")]) == 3

    printed = capsys.readouterr()
    assert "Traceback" in printed.err
    assert 'raise AttributeError("no such thing")' in printed.err
    assert "broken, diverged, infinite failed" in printed.err.splitlines()[-1]

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    told = json.loads((tmp_path / "table.json").read_text(), parse_constant=refuse)["checks"]
    assert [each["result"] for each in told] == ["FAILED"] * 3 + ["ok"]
    assert [each["said"] for each in told[:2]] == [
        "AttributeError: no such thing", "CheckFailed: step 3: a:1. Look at it.",
    ]  # fmt: skip
    assert [each["difference"] for each in told] == [None, None, None, 0.0]


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
