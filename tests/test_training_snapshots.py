"""Pictures of what a generator draws while it learns: there, alike, and without a trace in the training."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import TrainerControl, TrainerState

from finetune.errors import UserError
from finetune.recipe import Recipe
from finetune.run import build_trainer
from finetune.task import Picture
from finetune.training.options import TrainOptions
from finetune.training.snapshots import Snapshots


class Drawing:
    """A task whose picture is noise of the global generator and the mode of the model."""

    def sample(self, model, processor):
        assert not model.training
        assert not torch.is_grad_enabled()
        return Picture((torch.rand(4, 6, 3) * 255).to(torch.uint8).numpy(), "drawn")


@pytest.fixture
def look(tmp_path):
    model = torch.nn.Dropout().train()
    trainer = SimpleNamespace(task=Drawing(), sampled_model=lambda: model)
    args = SimpleNamespace(output_dir=str(tmp_path), seed=3)

    def go(step, first=True, task=None):
        trainer.task = task or trainer.task
        state = TrainerState(global_step=step, max_steps=400, is_world_process_zero=first)
        Snapshots(trainer, None).on_evaluate(args, state, TrainerControl())
        assert model.training
        return sorted(path.name for path in tmp_path.glob("samples/*"))

    return go


def test_each_look_draws_from_the_same_noise_and_leaves_the_random_numbers_alone(look, tmp_path):
    torch.manual_seed(0)
    before = torch.get_rng_state()

    assert look(10) == ["step-000010.png"]
    assert look(60) == ["step-000010.png", "step-000060.png"]
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (Image.open(tmp_path / "samples" / name) for name in ("step-000010.png", "step-000060.png"))
    assert (np.asarray(first) == np.asarray(second)).all()
    assert first.text["Description"] == "drawn"


def test_other_processes_step_zero_and_texts_leave_no_picture(look):
    assert look(10, first=False) == []
    assert look(0) == []
    assert look(10, task=SimpleNamespace(sample=lambda model, processor: ["a text"])) == []


def test_a_long_training_leaves_twenty_pictures_and_a_resumed_one_goes_on_with_them(look):
    for step in range(1, 401):
        names = look(step)

    assert 20 <= len(names) <= 21
    assert names[-1] == "step-000400.png"


@pytest.mark.parametrize(
    ("kind", "task", "processes", "refused"),
    [
        ("masked-lm", {"pseudo_perplexity": 4}, 2, "leave task.pseudo_perplexity out"),
        ("masked-lm", {"pseudo_perplexity": 4}, 1, None),
        ("masked-lm", {}, 2, None),
        ("text-vae", {}, 2, "FSDP or ZeRO-3"),
        ("image-vae", {}, 2, "FSDP or ZeRO-3"),
        ("image-classification", {}, 2, "FSDP or ZeRO-3"),
        ("text-classification", {}, 2, None),
    ],
)
@pytest.mark.parametrize("sharding", ["fsdp", "zero3"])
def test_what_one_process_looks_at_alone_is_whole_there(
    sections, monkeypatch, kind, task, processes, refused, sharding
):
    recipe = Recipe.from_dict(sections(kind, task=task))
    held = SimpleNamespace(is_fsdp_enabled=sharding == "fsdp", is_deepspeed_enabled=sharding == "zero3")
    monkeypatch.setattr(
        "finetune.tasks.trainer_class", lambda task: lambda **given: SimpleNamespace(**vars(held), **given)
    )
    monkeypatch.setattr("transformers.integrations.deepspeed.is_deepspeed_zero3_enabled", lambda: sharding == "zero3")
    monkeypatch.setattr(TrainOptions, "world_size", processes)
    encoded, splits = {"train": SimpleNamespace(inputs=None)}, SimpleNamespace(fingerprints={})
    monkeypatch.setattr("finetune.training.rehearsal.rehearse", lambda trainer: None)
    prepared = SimpleNamespace(recipe=recipe, encoded=encoded, processor=None, splits=splits, reader="")

    if refused is None:
        assert build_trainer(prepared, nn.Identity(), []).task == recipe.task
        return
    with pytest.raises(UserError, match=f"^task.kind {kind} .*{refused}"):
        build_trainer(prepared, nn.Identity(), [])
