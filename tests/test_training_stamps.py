"""Line R4: what was changed between a checkpoint and the run that goes on from it."""

from __future__ import annotations

import json

import pytest
from test_training_resume import killed_after, whole_state
from tiny_training import rows, trainer
from torch.testing import assert_close

from finetune.errors import UserError
from finetune.training import checkpoints, stamps

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
