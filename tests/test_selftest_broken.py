"""What each check of `finetune selftest` fails on: one thing broken in the code that it looks at."""

from __future__ import annotations

import errno
import json
import subprocess

import pytest
import torch
from test_selftest import only

from finetune.cli import main
from finetune.errors import EnvironmentFailed
from finetune.recipe import Recipe
from finetune.selftest import checks, selftest
from finetune.selftest.schedules import share


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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.safetensors"), "the disk is full: a.safetensors"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (EnvironmentFailed("step 3 could not be saved"), "step 3 could not be saved"),
    ],
    ids=["disk", "memory", "said"],
)
def test_what_the_machine_refuses_ends_the_selftest_and_is_no_check_that_failed(monkeypatch, capsys, error, line):
    def refused(stage):
        raise error

    def never(stage):
        raise AssertionError("the disk is as full for this one")

    monkeypatch.setattr(checks, "CHECKS", (refused, never))

    assert main(["selftest"]) == 4
    printed = capsys.readouterr()
    assert line in printed.err
    assert "Traceback" not in printed.err
    assert "FAILED" not in printed.out


def test_two_processes_that_the_machine_ends_are_no_check_that_failed(monkeypatch, capsys) -> None:
    def ended(*given, **named):
        return subprocess.CompletedProcess(given, 4, "", "finetune (rank 1): the disk is full: a.safetensors.\n")

    only(monkeypatch, "processes")
    monkeypatch.setattr(checks.subprocess, "run", ended)

    assert main(["selftest"]) == 4
    assert "two processes: the disk is full: a.safetensors." in capsys.readouterr().err


def test_a_schedule_that_another_formula_gives_fails(monkeypatch, capsys) -> None:
    only(monkeypatch, "schedule")
    monkeypatch.setattr(checks, "share", lambda kind, *given: share("cosine", *given))

    assert main(["selftest"]) == 3
    assert "schedule failed" in capsys.readouterr().err
