"""The folder of a run before it trains: what --overwrite may remove, and what a kill may leave in it."""

from __future__ import annotations

import os
import shutil
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import finetune.preparation
import finetune.run
from finetune import artefact
from finetune.errors import UserError
from finetune.recipe import Recipe
from finetune.run import train
from finetune.training.trainer import Trainer


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    """A finished run with a model, a teacher and rows in it."""
    made = Path(shutil.copytree(home / "bert", tmp_path / "run"))
    shutil.copytree(home / "teacher", made / "teacher")
    for name in ("train", "test"):
        shutil.copy(home / f"{name}.jsonl", made / f"{name}.jsonl")
    artefact.write_status(made, "finished", "text-classification")
    return made


def held(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize(
    ("section", "options", "named"),
    [
        ("model", {"path": "run"}, "model.path: run"),
        ("model", {"path": "elsewhere/../run"}, "model.path: elsewhere/../run"),
        ("model", {"path": "link"}, "model.path: link"),
        ("model", {"tokenizer": "run"}, "model.tokenizer: run"),
        ("task", {"distill": {"teacher": "run/teacher"}}, "task.distill.teacher: run/teacher"),
        ("task", {"distill": {"teacher": "twin", "alone": "run"}}, "task.distill.alone: run"),
        ("data", {"train": "run/train.jsonl"}, "data.train: run/train.jsonl"),
        ("data", {"train": ["train.jsonl", "run/tr*.jsonl"]}, r"data.train: run/tr*.jsonl"),
        ("data", {"test": "r*/test.jsonl"}, "data.test: r*/test.jsonl"),
        ("evaluate", {"outliers": "run/test.jsonl"}, "evaluate.outliers: run/test.jsonl"),
    ],
)
def test_overwrite_removes_nothing_that_the_run_starts_from(
    sections: Any, folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch, section: str, options: Any, named: str
):
    monkeypatch.chdir(folder.parent)
    Path("elsewhere").mkdir()
    Path("link").symlink_to(folder)
    Path("twin").symlink_to(home / "teacher")
    Path("train.jsonl").symlink_to(home / "train.jsonl")
    before = held(folder)
    recipe = Recipe.from_dict(sections("text-classification", train={"overwrite": True}, **{section: options}))

    with pytest.raises(UserError) as caught:
        train(recipe)

    assert str(caught.value).startswith(f"{named} ")
    assert "--overwrite would remove" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert held(folder) == before


def test_seeds_remove_nothing_that_they_start_from(sections: Any, folder: Path, tmp_path: Path):
    seed = folder.rename(tmp_path / "seed-1")
    (tmp_path / "all").mkdir()
    seed = seed.rename(tmp_path / "all" / "seed-1")
    made = sections("text-classification", model={"path": str(seed)})
    made["train"] |= {"output_dir": str(tmp_path / "all"), "seeds": [1, 2], "overwrite": True}
    before = held(seed)

    with pytest.raises(UserError, match=r"^model.path: .*seed-1 "):
        train(Recipe.from_dict(made))

    assert held(seed) == before


def test_what_lies_beside_a_run_does_not_keep_it_from_being_overwritten(run: Any, folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "run-before")
    (folder / "old.txt").write_text("of the run before")

    made = run("text-classification", model={"path": str(tmp_path / "run-before")}, train={"overwrite": True})

    assert artefact.status(made) == "finished"
    assert not (made / "old.txt").exists()


def test_a_kill_in_the_first_write_leaves_a_folder_that_the_same_command_takes(run: Any, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.tmp").write_text('{"form')

    assert artefact.status(run("text-classification")) == "finished"


def test_a_kill_while_a_run_is_removed_leaves_one_that_the_same_command_starts_anew(
    run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    remove, left = os.unlink, 3

    def killed(path: Any, *rest: Any, **more: Any) -> None:
        nonlocal left
        if os.path.basename(os.fspath(path)) in held_names:
            left -= 1
            if not left:
                raise Killed
        remove(path, *rest, **more)

    held_names = {Path(name).name for name in held(folder)}
    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", killed)
        with pytest.raises(Killed):
            run("text-classification", train={"overwrite": True})

    assert artefact.status(folder) == "unfinished"
    assert artefact.status(run("text-classification", train={"overwrite": True})) == "finished"


def test_the_time_of_a_run_is_that_of_all_its_starts(run: Any, monkeypatch: pytest.MonkeyPatch):
    class Killed(BaseException):
        pass

    batches, training = Trainer.get_batch_samples, Trainer.train

    def slow(self: Trainer, *given: Any, **more: Any) -> Any:
        if self.state.global_step == 0:
            assert self.clock.started is not None
            self.clock.started -= 1000.0  # of training
            self.clock.begun -= 1000.0
        if self.state.global_step == 2:
            raise Killed
        return batches(self, *given, **more)

    prepared = []

    def preparation(recipe: Any) -> Any:
        prepared.append(time.monotonic())
        return finetune.preparation.prepare(recipe)

    def late(self: Trainer, *given: Any, **more: Any) -> Any:
        assert self.clock.begun <= prepared[-1]
        self.clock.begun -= 400.0  # as if rows took that long
        return training(self, *given, **more)

    told = {"save_strategy": "steps", "save_steps": 1}
    monkeypatch.setattr("finetune.run.prepare", preparation)
    monkeypatch.setattr(Trainer, "train", late)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "get_batch_samples", slow)
        with pytest.raises(Killed):
            run("text-classification", train=told)
    environment = artefact.read_json(run("text-classification", train=told) / artefact.ENVIRONMENT)

    assert 1000.0 < environment["training_time_s"] < 1400.0
    assert 1800.0 < environment["wall_time_s"] < 2200.0


@pytest.mark.parametrize("kind", ["text-classification", "image-gan"])
def test_the_optimiser_is_gone_when_a_second_copy_of_the_model_is_loaded(
    run: Any, monkeypatch: pytest.MonkeyPatch, kind: str
):
    made: list[weakref.ref[torch.optim.Optimizer]] = []
    make, ends = transformers.Trainer.create_optimizer, finetune.run.finish
    here: list[bool] = []

    def kept(self: Any, *given: Any) -> Any:
        found = make(self, *given)
        made.append(weakref.ref(found))
        return found

    def finish(*given: Any) -> None:
        here.extend(each() is not None for each in made)
        ends(*given)

    monkeypatch.setattr(transformers.Trainer, "create_optimizer", kept)
    monkeypatch.setattr("finetune.run.finish", finish)

    run(kind)

    assert here == [False] * (2 if kind == "image-gan" else 1)
