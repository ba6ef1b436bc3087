from __future__ import annotations

import errno
import json
import math
import os
import random
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_training import model, rows, trainer
from torch.testing import assert_close

from finetune.errors import CheckFailed, EnvironmentFailed, UserError
from finetune.training import checkpoints, packing

TIMES = ("tokens_per_second", "eval_runtime", "eval_rows_per_second", "train_runtime")


class Killed(BaseException):
    """What a kill is to the code under test: nothing catches it."""


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    run = trainer(folder, train=rows(24), num_train_epochs=1, save_strategy="steps", save_steps=1, save_total_limit=5)
    run.train()
    return folder


FILES = (
    "manifest.json",
    "model.safetensors",
    "optimizer.json",
    "optimizer.safetensors",
    "process-0.json",
    "process-0.safetensors",
    "schedule.json",
    "trainer_state.json",
    "config.json",
)


def _missing(file):
    file.unlink()


def _empty(file):
    file.write_bytes(b"")


def _cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


DAMAGES = {"missing": _missing, "empty": _empty, "cut": _cut, "flipped": _flipped}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_passed_over_and_said(three, tmp_path, capsys, contract, name, damage):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three / "checkpoints", folder)
    assert checkpoints.last_good(folder) == folder / "checkpoint-3"
    DAMAGES[damage](folder / "checkpoint-3" / name)

    assert checkpoints.last_good(folder) == folder / "checkpoint-2"
    said = capsys.readouterr().out
    assert "checkpoint-3 is damaged" in said
    assert name in said
    assert said.count("\n") == 1
    contract("R2", damaged=1, passed_over=1)


def test_every_file_of_a_checkpoint_is_in_its_manifest(three):
    path = three / "checkpoints" / "checkpoint-3"

    assert {each.name for each in path.iterdir()} == set(FILES)
    assert checkpoints.read_manifest(path)["files"].keys() == set(FILES) - {"manifest.json"}


def test_what_a_kill_leaves_of_a_checkpoint_is_never_resumed(three, tmp_path):
    shutil.copytree(three / "checkpoints", tmp_path / "checkpoints")
    os.replace(tmp_path / "checkpoints/checkpoint-3", tmp_path / "checkpoints/.checkpoint-3.tmp")

    run = trainer(tmp_path, train=rows(24), num_train_epochs=1, save_strategy="steps", save_steps=1, save_total_limit=5)
    run.train(resume_from_checkpoint=True)

    held, expected = (load_file(each / "checkpoints/checkpoint-3/model.safetensors") for each in (tmp_path, three))
    assert_close(held, expected, rtol=0, atol=0)
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize("call", range(1, 40))
def test_a_kill_at_any_write_loses_no_committed_checkpoint(three, tmp_path, monkeypatch, call):
    folder = tmp_path / "checkpoints"
    shutil.copytree(three / "checkpoints", folder)
    calls = iter(range(1, 1000))

    def counted(original):
        def do(*args, **kwargs):
            if next(calls) == call:
                raise Killed
            return original(*args, **kwargs)

        return do

    for name in ("replace", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    try:
        for step in (3, 4):  # one step again, and a new one
            stage = checkpoints.open_stage(folder, step, 0)
            packing.write_state(stage, "state", {"step": step})
            checkpoints.commit(folder, step, {"stamp": {}})
            checkpoints.rotate(folder, 2, best=1, good=step)
    except Killed:
        pass
    monkeypatch.undo()

    found = checkpoints.last_good(folder)
    assert found is not None
    assert int(found.name.split("-")[1]) >= 3
    assert checkpoints.checkpoint_path(folder, 1).is_dir()


def test_a_changed_recipe_is_refused_with_its_differences(tmp_path):
    trainer(tmp_path, train=rows(16), num_train_epochs=2).train()
    changed = trainer(tmp_path, train=rows(16), num_train_epochs=2, learning_rate=0.5, stamp={"data": {"train": "xyz"}})

    with pytest.raises(UserError) as caught:
        changed.train(resume_from_checkpoint=True)
    assert 'data.train: "abc" → "xyz"' in str(caught.value)
    assert "train.learning_rate: 0.05 → 0.5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_output_dir_with_checkpoints_is_neither_mixed_nor_lost(tmp_path):
    trainer(tmp_path, train=rows(16), num_train_epochs=2).train()

    with pytest.raises(UserError, match="overwrite"):
        trainer(tmp_path, train=rows(16), num_train_epochs=1).train()
    run = trainer(tmp_path, train=rows(16), num_train_epochs=1, save_strategy="epoch", overwrite=True)
    run.train()
    assert checkpoints.steps(tmp_path / "checkpoints") == [2]


def test_a_full_disk_is_met_before_anything_is_written(tmp_path, monkeypatch):
    run = trainer(tmp_path, train=rows(24), num_train_epochs=1, save_strategy="steps", save_steps=1)
    usage = shutil.disk_usage(tmp_path)
    seen = iter([usage, usage, usage._replace(free=1000)])  # at the start, before the first and the second
    monkeypatch.setattr(shutil, "disk_usage", lambda _: next(seen))

    with pytest.raises(EnvironmentFailed, match=r"1,000 are free"):
        run.train()
    assert [each.name for each in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-1"]


def test_a_disk_that_fills_up_leaves_no_part_of_a_checkpoint(tmp_path, monkeypatch):
    run = trainer(tmp_path, train=rows(24), num_train_epochs=1, save_strategy="steps", save_steps=1)
    original, count = os.fsync, iter(range(100))

    def full(handle):
        if next(count) == 14:
            raise OSError(28, "No space left on device")
        original(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFailed, match="the disk is full"):
        run.train()

    assert [each.name for each in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-1"]
    assert checkpoints.last_good(tmp_path / "checkpoints") is not None


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), TypeError("state.what is Thing")])
def test_no_failure_leaves_a_part_of_a_checkpoint(tmp_path, monkeypatch, error):
    run = trainer(tmp_path, train=rows(8), max_steps=1)

    def broken(handle):
        raise error

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(type(error)):
        run.train()

    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_room_is_asked_for_what_a_checkpoint_has(tmp_path, optim):
    run = trainer(tmp_path, train=rows(8), network=model(layers=40), max_steps=1, optim=optim)
    asked = run._bytes_needed()
    run.train()
    written = sum(each.stat().st_size for each in (tmp_path / "checkpoints" / "checkpoint-1").iterdir())

    assert written == pytest.approx(asked, rel=0.5)
    assert run._bytes_needed() == pytest.approx(asked, rel=0.01)


def test_no_checkpoint_holds_weights_that_are_not_finite(tmp_path):
    run = trainer(tmp_path, train=rows(8), max_steps=1)
    with torch.no_grad():
        run.model.classifier.bias[0] = math.nan

    with pytest.raises(CheckFailed, match="finite"):
        run._save_checkpoint(run.model, None)
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_of_another_model_is_refused(three, tmp_path):
    shutil.copytree(three / "checkpoints", tmp_path / "checkpoints")
    options = {"num_train_epochs": 1, "save_strategy": "steps", "save_steps": 1}
    run = trainer(tmp_path, train=rows(24), network=model(layers=2), **options)

    with pytest.raises(CheckFailed, match="another model"):
        run.train(resume_from_checkpoint=True)


def test_state_comes_back_with_its_types_and_shared_tensors(tmp_path):
    shared = torch.arange(3.0)
    state = {
        "generator": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        1: {"betas": (0.9, 0.99), "list": [None, True, "text"], "worst": math.inf, "a": shared, "b": shared},
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": {},
    }
    packing.write_state(tmp_path, "state", state)
    read = packing.read_state(tmp_path, "state")

    assert read["generator"] == state["generator"]
    assert read["numpy"][0] == state["numpy"][0]
    assert read["numpy"][1].dtype == np.uint32
    assert (read["numpy"][1] == state["numpy"][1]).all()
    assert read[1]["betas"] == (0.9, 0.99)
    assert read[1]["list"] == [None, True, "text"]
    assert read[1]["worst"] == math.inf
    assert torch.equal(read[1]["a"], shared)
    assert torch.equal(read[1]["b"], shared)
    assert read["scalar"].dtype == torch.float64
    assert read["scalar"].item() == 3.5
    assert read["empty"] == {}
    assert len(load_file(tmp_path / "state.safetensors")) == 3
    with pytest.raises(TypeError, match=r"state\.what"):
        packing.write_state(tmp_path, "state", {"what": object()})


def test_the_history_holds_strict_json(tmp_path):
    run = trainer(tmp_path, train=rows(16), evaluate=rows(9, 1), num_train_epochs=1)
    run.train()

    json.dumps(run.history, allow_nan=False)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("hf/finetune/encodings/a.arrow", "hf/finetune/encodings"),  # not the run's disk
        ("run/samples/before.png", "run"),
        ("before.png", "run"),  # of no folder: the one that is being written
        (None, "hf"),  # a library that names no file: the disk that has no room
    ],
)
def test_a_full_disk_is_the_one_that_is_named(tmp_path, monkeypatch, file, named):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(checkpoints, "_free", lambda folder: 4096 if "hf" in folder.parts else 500_000_000_000)
    written = str(tmp_path / file) if file is not None and "/" in file else file

    with pytest.raises(EnvironmentFailed) as caught, checkpoints.disk(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "No space left on device", written)

    free = "4,096" if "hf" in named else "500,000,000,000"
    assert str(caught.value).startswith(f"{tmp_path / named}: the disk is full ({free} bytes free); ")
    assert "nothing was kept" not in str(caught.value)
