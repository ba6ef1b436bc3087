"""Parts of a game's step: stand-ins, and a step that breaks off."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch
from tiny_gan import CONVOLUTIONS, DENSE, SGD, images, state, trainer

from finetune.errors import CheckFailed
from finetune.training.guarded import Carried

BATCH = {"per_device_train_batch_size": 16}


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("norm", [{**CONVOLUTIONS, "generator_norm": "batch"}, {**DENSE, "generator_norm": "batch"}])
def test_a_stand_in_teaches_no_batch_norm_and_may_be_a_single_image(player, norm):
    run = trainer(({"loss": "hinge"}, norm), train=images(2), per_device_train_batch_size=2)
    run.state.max_steps = 1
    (groups,), _ = run.get_batch_samples(iter(run.get_train_dataloader()), 1, torch.device("cpu"))
    groups[0].carried, before = [Carried([], stand_in=True)], state(run)
    groups[0].batches = [{name: each[:1] if each.dim() else each for name, each in groups[0].batches[0].items()}]

    def loss(batch):
        if player == "generator":
            return run.task.generator_loss(run.model, run.discriminator, batch)
        return run.task.discriminator_loss(run.discriminator, run.model, batch).loss

    run.model.train()
    learner = run.model if player == "generator" else run.discriminator
    run._each(groups[0], learner, loss)

    after = state(run)
    assert all(torch.equal(after[name], each) for name, each in before.items())
    assert all(each.training for each in run.model.modules())
    assert all(each.grad is not None and not each.grad.any() for each in learner.parameters())


@pytest.mark.parametrize(
    ("player", "call", "said"),
    [
        ("discriminator", 1, "the step was not taken"),
        ("discriminator", 2, "the step was broken off after 1 of the discriminator's"),
        ("discriminator", 3, "the step was broken off after 2 of the discriminator's"),
        ("generator", 1, "the step was broken off after 3 of the discriminator's"),
    ],
)
def test_a_step_that_breaks_off_says_how_much_of_it_was_taken(monkeypatch, player, call, said):
    run, calls = trainer(({"loss": "hinge", "n_critic": 3}, DENSE), **SGD, **BATCH, max_steps=2), []
    inner, before = getattr(type(run.task), f"{player}_loss"), state(run)

    def broken(self, *given):
        calls.append(player)
        found = inner(self, *given)
        spoiled = math.nan if len(calls) == call else 1.0
        return found * spoiled if player == "generator" else dataclasses.replace(found, loss=found.loss * spoiled)

    monkeypatch.setattr(type(run.task), f"{player}_loss", broken)
    with pytest.raises(CheckFailed, match=re.escape(f"step 1: the loss is not a finite number; {said}. Its batch:")):
        run.train()
    moved = any(not torch.equal(state(run)[name], each) for name, each in before.items() if "discriminator" in name)
    assert moved == ("broken off" in said)
