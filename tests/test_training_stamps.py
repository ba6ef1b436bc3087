"""Line R4: what was changed between a checkpoint and the run that goes on from it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from test_training_resume import killed_after, whole_state
from tiny_training import rows, trainer
from torch.testing import assert_close

from finetune.errors import UserError
from finetune.training import checkpointed, checkpoints, packing, saved_state, stamps

OPTIONS = {"num_train_epochs": 2, "save_steps": 1, "save_strategy": "steps", "lr_scheduler_type": "cosine"}
STAMP = {"data": {"train": "abc"}, "files": {"train.csv": "1234"}}


def made(folder, stamp=None, **options):
    return trainer(folder, train=rows(37), stamp=stamp or STAMP, **{**OPTIONS, **options})


@pytest.fixture
def broken(tmp_path):
    killed_after(made(tmp_path), 4)
    return tmp_path


CHANGES = [
    ("train.learning_rate", {"learning_rate": 0.01}, None),
    ("train.per_device_train_batch_size", {"per_device_train_batch_size": 4}, None),
    ("train.gradient_accumulation_steps", {"gradient_accumulation_steps": 2}, None),
    ("train.seed", {"seed": 5}, None),
    ("train.num_train_epochs", {"num_train_epochs": 3}, None),
    ("train.warmup_steps", {"warmup_steps": 3}, None),
    ("train.optim", {"optim": "sgd"}, None),
    ("files.train.csv", {}, {**STAMP, "files": {"train.csv": "5678"}}),
    ("data.train", {}, {**STAMP, "data": {"train": "xyz"}}),
]


@pytest.mark.parametrize(("name", "options", "stamp"), CHANGES, ids=[each[0] for each in CHANGES])
def test_a_change_is_refused_by_its_name(broken, contract, name, options, stamp):
    run = made(broken, stamp, **options)

    with pytest.raises(UserError) as caught:
        run.train(resume_from_checkpoint=True)
    assert f"({name}: " in str(caught.value).replace("; ", "(")
    assert " → " in str(caught.value)
    assert caught.value.exit_code == 2
    assert ("--train.allow_change" in str(caught.value)) == (name.partition(".")[2] in stamps.CHANGEABLE)
    contract("R4", changes_refused=1)


@pytest.mark.parametrize("name", ["world.processes", "versions.torch"])
def test_other_processes_and_versions_are_refused(broken, contract, name):
    run = made(broken)
    section, option = name.split(".")
    run.stamp = {**run.stamp, section: {**run.stamp[section], option: "another"}}

    with pytest.raises(UserError, match=name):
        run.train(resume_from_checkpoint=True)
    contract("R4", changes_refused=1)


@pytest.mark.parametrize("allowed", ["learning_rate", "train.learning_rate"])
def test_a_change_that_is_allowed_is_applied_and_recorded(broken, capsys, contract, allowed):
    run = made(broken, learning_rate=0.01, allow_change=[allowed])
    run.train(resume_from_checkpoint=True)

    expected = [row["learning_rate"] for row in trained(learning_rate=0.01) if row.get("step", 0) > 4]
    assert [row["learning_rate"] for row in run.history if row["step"] > 4 and "learning_rate" in row] == expected
    change = {"step": 4, "name": "train.learning_rate", "old": 0.05, "new": 0.01}
    assert list(run.changes) == [change]
    assert "changed at step 4: train.learning_rate: 0.05 → 0.01" in capsys.readouterr().out
    last = checkpoints.last_good(run.checkpoints)
    assert json.loads((last / "manifest.json").read_text())["changes"] == [change]
    again = made(broken, learning_rate=0.01)  # from here on it is this run's own rate
    again.train(resume_from_checkpoint=True)
    assert list(again.changes) == [change]
    contract("R4", changes_allowed=1)


def trained(**options):
    run = made(None, **options)
    run.train()
    return [row for row in run.history if "learning_rate" in row]


def test_allowing_what_has_not_changed_changes_nothing(broken):
    unbroken = made(None)
    unbroken.train()
    run = made(broken, allow_change=["learning_rate"])
    run.train(resume_from_checkpoint=True)

    assert_close(whole_state(run), whole_state(unbroken), rtol=0, atol=0)


def test_what_decides_which_rows_come_cannot_be_allowed(broken):
    run = made(broken, seed=5, allow_change=["seed"])

    with pytest.raises(UserError, match=r"train\.seed cannot be allowed"):
        run.train(resume_from_checkpoint=True)


def test_a_stream_is_read_by_as_many_workers_as_before(tmp_path):
    def run(workers):
        stream = rows(21).to_iterable_dataset()
        return trainer(tmp_path, train=stream, max_steps=4, save_steps=1, dataloader_num_workers=workers)

    killed_after(run(0), 2)
    assert "dataloader_num_workers" not in made(None, dataloader_num_workers=2).stamp["train"]  # of a table: no matter

    with pytest.raises(UserError, match=r"train\.dataloader_num_workers: 0 → 2"):
        run(2).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("options", "cadence"),
    [({"early_stopping_patience": 9}, True), ({"lr_scheduler_type": "reduce_lr_on_plateau"}, True), ({}, False)],
    ids=["patience", "plateau", "neither"],
)
def test_evaluations_that_decide_something_come_as_often_as_before(tmp_path, options, cadence):
    def run(steps):
        given = {**OPTIONS, "eval_strategy": "steps", "load_best_model_at_end": False, **options}
        return trainer(tmp_path, train=rows(37), evaluate=rows(9, 1), eval_steps=steps, **given)

    killed_after(run(1), 2)
    if cadence:
        with pytest.raises(UserError, match=r"train\.eval_steps: 1 → 5"):
            run(5).train(resume_from_checkpoint=True)
    else:
        again = run(5)
        again.train(resume_from_checkpoint=True)
        assert [row["step"] for row in again.history if "eval_nll" in row] == [1, 2, 5, 10]


ZERO = SimpleNamespace(zero_stage=2)
SHARDS = {"fsdp_version": 2}


@pytest.mark.parametrize(
    ("zero", "shards", "strategy"), [(None, None, "plain"), (ZERO, None, "zero2"), (None, SHARDS, "fsdp2")]
)
def test_what_splits_the_state_over_processes_is_stamped(tmp_path, monkeypatch, zero, shards, strategy):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    args = made(tmp_path).args
    args.deepspeed_plugin, args.fsdp_plugin_args = zero, shards

    assert stamps.stamped({}, args)["world"] == {"processes": 1, "strategy": strategy, "device": "cpu"}


def test_another_kind_of_device_is_refused_and_may_be_allowed(tmp_path):
    run = made(tmp_path)
    run.stamp["world"]["device"] = "cuda"
    killed_after(run, 4)

    with pytest.raises(UserError, match=r'world\.device: "cuda" → "cpu".*allow it'):
        made(tmp_path).train(resume_from_checkpoint=True)
    again = made(tmp_path, allow_change=["world.device"])
    again.train(resume_from_checkpoint=True)
    assert [each["name"] for each in again.changes] == ["world.device"]


def test_a_gpus_random_state_is_left_aside_on_a_cpu():
    kept = saved_state.random_state(torch.device("cpu"))
    drawn = torch.rand(3)
    saved_state.restore_random({**kept, "device": torch.arange(16).byte(), "device_type": "cuda"}, torch.device("cpu"))

    assert torch.equal(torch.rand(3), drawn)


def test_only_what_was_changed_is_kept_of_a_new_optimizer():
    def pair(decay):
        optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.5, weight_decay=decay)
        optimizer.param_groups[0]["k"] = 0  # schedule-free optimisers count here
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

    old, new = pair(0.1), pair(0.2)
    old[0].param_groups[0]["k"] = 7
    change = {"step": 1, "name": "train.weight_decay", "old": 0.1, "new": 0.2}
    with stamps.applied([change], *new):
        new[0].load_state_dict(old[0].state_dict())
        new[1].load_state_dict(old[1].state_dict())

    group = new[0].param_groups[0]
    assert (group["k"], group["weight_decay"], group["lr"]) == (7, 0.2, 0.5)


def test_a_change_reaches_an_optimizer_in_shards(broken, monkeypatch):
    def load(run, path):
        run.optimizer.load_state_dict(packing.read_state(path, "optimizer"))

    run = made(broken, weight_decay=0.3, allow_change=["weight_decay"])
    run.create_optimizer_and_scheduler(10)
    path = run._last_good()
    monkeypatch.setattr(checkpointed, "load_sharded_optimizer", load)
    run.is_fsdp_enabled = True
    run._load_optimizer_and_scheduler(str(path))

    assert {group["weight_decay"] for group in run.optimizer.param_groups} == {0.3, 0.0}


def test_deepspeed_takes_no_other_weight_decay(broken):
    stamp = {**STAMP, "world": {"strategy": "zero2"}}
    path = checkpoints.checkpoint_path(broken / "checkpoints", 4)
    (path / "manifest.json").write_text(json.dumps({"step": 4, "stamp": {**stamp, "train": {"weight_decay": 0.1}}}))

    with pytest.raises(UserError, match=r"DeepSpeed would go on with the train\.weight_decay of "):
        stamps.check(path, {**stamp, "train": {"weight_decay": 0.3}}, ["weight_decay"])
