"""A number that is not finite at any step, from wherever it comes: before the step, naming the rows."""

from __future__ import annotations

import json
import re

import pytest
import tiny_gan
import torch
from test_training_resume import killed_after
from tiny_training import SGD, rows, trainer, weights
from torch.testing import assert_close
from transformers import TrainerCallback

from finetune.errors import CheckFailed, UserError

STEPS = 16
LINE = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 1, "num_train_epochs": 1}
PLAIN = {**SGD, "logging_steps": 1, **LINE}


def poisoned(places, value=float("nan"), count=STEPS):
    poison = [1.0] * count
    for place in places:
        poison[place] = value
    return rows(count).remove_columns("poison").add_column("poison", poison)


class Change(TrainerCallback):
    """Ruins the run itself, before the step of this number (from 1)."""

    def __init__(self, run, step, what, value):
        self.run, self.step, self.what, self.value = run, step, what, value

    def on_step_begin(self, args, state, control, **kwargs):
        if self.what == "weights" and state.global_step == self.step - 1:
            with torch.no_grad():
                next(each for each in self.run.model.parameters()).view(-1)[:] = self.value

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if self.what == "rate" and state.global_step == self.step - 1:
            for group in kwargs["optimizer"].param_groups:
                group["lr"] = self.value


@pytest.mark.parametrize("step", range(1, STEPS + 1))
@pytest.mark.parametrize("source", ["label", "weights", "rate"])
def test_no_step_is_taken_on_a_number_that_is_not_finite(tmp_path, contract, source, step):
    value = float("nan" if (step + len(source)) % 2 else "inf")
    inputs = poisoned([step - 1], value) if source == "label" else rows(STEPS)
    run = trainer(tmp_path, train=inputs, save_strategy="steps", save_steps=1, save_total_limit=None, **PLAIN)
    if source != "label":
        run.add_callback(Change(run, step, source, value))

    with pytest.raises(CheckFailed) as caught:
        run.train()

    assert caught.value.exit_code == 3
    assert run.state.global_step == (step if source == "rate" else step - 1)  # a rate ruins what the step leaves
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert found["step"] == step
    assert found["row_ids"] == [f"numbers.csv:{step + 1}"]
    assert f"numbers.csv:{step + 1} (" in str(caught.value)
    assert ("the step was not taken" in str(caught.value)) == (source != "rate")
    kept = [int(path.name.split("-")[1]) for path in (tmp_path / "checkpoints").glob("checkpoint-*")]
    assert sorted(kept) == list(range(1, step))  # none of what follows
    assert all(abs(each) < float("inf") for row in run.history for each in row.values())
    contract("R7", injected=1)


def test_weights_that_the_last_step_ruins_are_not_saved_where_nothing_is_saved_on_the_way(tmp_path):
    run = trainer(tmp_path, train=rows(4), save_strategy="no", **PLAIN)
    run.add_callback(Change(run, 4, "rate", float("inf")))

    with pytest.raises(CheckFailed, match="step 4: the weights are no longer finite numbers; the step was taken"):
        run.train()
    assert json.loads((tmp_path / "nonfinite.json").read_text())["row_ids"] == ["numbers.csv:5"]


@pytest.mark.parametrize(
    ("named", "network"),
    [
        ("the weights", lambda run: run.model),
        ("the discriminator's weights", lambda run: run.discriminator),
        ("the averaged weights", lambda run: run.average.network),
    ],
    ids=["generator", "discriminator", "average"],
)
def test_no_checkpoint_of_a_game_holds_a_number_that_is_not_finite(tmp_path, contract, named, network):
    run = tiny_gan.trainer(tiny_gan.NORMED, tmp_path, **tiny_gan.ADAM, max_steps=1)
    run.train()
    [each for each in network(run).state_dict().values() if each.is_floating_point()][-1].view(-1)[0] = float("nan")

    with pytest.raises(CheckFailed, match=rf"step 1: {named} are no longer finite numbers; .* Its batch: images\.npz:"):
        run._save_checkpoint(run.model, None)
    assert not (tmp_path / "checkpoints").exists()
    contract("R7", injected=1)


def test_of_a_weight_that_zero3_has_split_the_own_share_is_looked_at(tmp_path):
    run = trainer(tmp_path, train=rows(8), max_steps=1)
    weight = run.model.classifier.weight
    weight.ds_tensor, weight.data = torch.full_like(weight.data, torch.nan), torch.empty(0)

    with pytest.raises(CheckFailed, match="the weights are no longer finite"):
        run._save_checkpoint(run.model, None)


@pytest.mark.parametrize(("skipped", "fate"), [(True, "the step was not taken"), (False, "the step was taken")])
def test_of_a_step_that_deepspeed_took_inside_backward_it_is_said_so(tmp_path, monkeypatch, skipped, fate):
    run = trainer(tmp_path, train=rows(8), max_steps=1)
    run.is_deepspeed_enabled, run._losses = True, [torch.ones(())]
    monkeypatch.setattr(type(run.accelerator), "optimizer_step_was_skipped", skipped)

    with pytest.raises(CheckFailed, match=f"step 1: the gradient is not a finite number; {fate}"):
        run._stop_unless_finite(float("inf"))


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_steps_within_the_budget_are_left_out_and_change_nothing_but_the_schedule(tmp_path, contract, optim, capsys):
    options = {**PLAIN, "optim": optim, "learning_rate": 0.01, "weight_decay": 0.1}
    run = trainer(tmp_path, train=poisoned([2, 7]), nan_budget=2, **options)
    run.train()
    sound = rows(STEPS).select([place for place in range(STEPS) if place not in (2, 7)])
    other = trainer(train=sound, **options)
    other.train()

    assert_close(weights(run.model), weights(other.model), rtol=0, atol=0)
    found = [each["loss"] for each in run.history if "loss" in each]
    assert found == pytest.approx([each["loss"] for each in other.history if "loss" in each])
    assert run.history[-1]["train_loss"] == pytest.approx(other.history[-1]["train_loss"])
    assert run.history[-1]["skipped_steps"] == 2
    told = json.loads((tmp_path / "nonfinite.json").read_text())["skipped"]
    assert [(each["step"], each["row_ids"]) for each in told] == [(3, ["numbers.csv:4"]), (8, ["numbers.csv:9"])]
    assert "step 3 is left out (1 of train.nan_budget 2)" in capsys.readouterr().out
    assert re.match(r"2 steps were left out \(train.nan_budget 2\)", run.skipped.alarms()[0])
    contract("R7", left_out=2)


@pytest.mark.parametrize("logging_steps", [1, 4, 16])
def test_a_mean_over_a_window_with_a_step_left_out_is_over_the_others(logging_steps):
    options = {**PLAIN, "learning_rate": 0.0, "logging_steps": logging_steps}
    run = trainer(train=poisoned([5, 6]), nan_budget=2, **options)
    run.train()
    each = trainer(train=rows(STEPS), **{**options, "logging_steps": 1})
    each.train()

    alone = [row["loss"] for row in each.history if "loss" in row]
    for row in run.history:
        if "loss" in row:
            window = [alone[step] for step in range(row["step"] - logging_steps, row["step"]) if step not in (5, 6)]
            assert row["loss"] == pytest.approx(sum(window) / len(window), rel=1e-5)


def test_accumulated_parts_of_a_step_left_out_count_nowhere():
    options = {**PLAIN, "learning_rate": 0.0, "gradient_accumulation_steps": 4}
    run = trainer(train=poisoned([6]), nan_budget=1, **options)
    run.train()
    sound = trainer(train=rows(STEPS), **options)
    sound.train()

    losses = [[each["loss"] for each in one.history if "loss" in each] for one in (run, sound)]
    assert losses[0] == pytest.approx([losses[1][place] for place in (0, 2, 3)])


def test_a_budget_that_is_spent_stops_the_run_and_says_how_many_it_let_pass():
    run = trainer(train=poisoned([1, 3, 5]), nan_budget=2, **PLAIN)

    with pytest.raises(
        CheckFailed, match=r"step 6: the loss .* 2 steps were left out \(train.nan_budget 2\) before it"
    ):
        run.train()


def test_a_resumed_run_goes_on_counting(tmp_path):
    options = {**PLAIN, "nan_budget": 2, "save_strategy": "steps", "save_steps": 4}
    inputs = poisoned([1, 9, 11])
    broken = trainer(tmp_path, train=inputs, **options)

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 8:
                raise KeyboardInterrupt

    broken.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    again = trainer(tmp_path, train=inputs, **options)

    with pytest.raises(CheckFailed, match=r"step 12: .* 2 steps were left out"):
        again.train(resume_from_checkpoint=True)
    assert [each["step"] for each in left_out(tmp_path)] == [2, 10]


def left_out(folder):
    return json.loads((folder / "nonfinite.json").read_text())["skipped"]


def test_a_resumed_run_keeps_the_rows_that_it_says_are_in_the_file(tmp_path):
    options = {**PLAIN, "nan_budget": 1, "save_strategy": "steps", "save_steps": 4}
    inputs = poisoned([1])
    killed_after(trainer(tmp_path, train=inputs, **options), 8)
    before = left_out(tmp_path)
    again = trainer(tmp_path, train=inputs, **options)
    again.train(resume_from_checkpoint=True)

    assert "the rows are in nonfinite.json" in again.skipped.alarms()[0]
    assert left_out(tmp_path) == before
    assert [(each["step"], each["row_ids"]) for each in before] == [(2, ["numbers.csv:3"])]


def test_a_budget_below_nothing_is_refused():
    with pytest.raises(UserError, match=r"train\.nan_budget is -1"):
        trainer(train=rows(4), nan_budget=-1)


def test_what_was_left_out_stands_in_the_report_and_in_the_words_of_the_run(run, capsys, monkeypatch):
    from finetune.tasks.text_classification import TextClassification

    whole, calls = TextClassification.loss, []

    def loss(self, network, batch):
        calls.append(1)
        total, outputs = whole(self, network, batch)
        return (total * float("nan") if len(calls) == 2 else total), outputs

    monkeypatch.setattr(TextClassification, "loss", loss)
    folder = run("text-classification", train={"nan_budget": 1})

    said = "1 step was left out (train.nan_budget 1)"
    assert f"Beware: {said}" in capsys.readouterr().out
    assert said in (folder / "report.html").read_text()
    for file in folder.rglob("*.json"):
        assert not re.search(r"\bNaN\b|\bInfinity\b", file.read_text()), file.name
    assert json.loads((folder / "history.json").read_text())[-1]["skipped_steps"] == 1
