"""Steps of two players: the same however they are cut, each player's own, and resumed to the bit."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_gan import (
    ADAM,
    CONVOLUTIONS,
    DENSE,
    GAMES,
    NORMED,
    SGD,
    gradients_of,
    history,
    images,
    killed_after,
    same,
    state,
    trainer,
)
from transformers import TrainerCallback

from finetune.task import Score

WHOLE = {"per_device_train_batch_size": 16}
PARTS = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
every_game = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)


def trained(game, **options):
    run = trainer(game, **{**SGD, "num_train_epochs": 2, **options})
    run.train()
    return run


def assert_same_state(given, expected, rtol, atol):
    given, expected = state(given), state(expected)
    assert given.keys() == expected.keys()
    for name, each in expected.items():
        torch.testing.assert_close(given[name], each, rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


@every_game
def test_accumulated_steps_take_the_steps_of_one_batch(game):
    whole, parts = trained(game, **WHOLE), trained(game, **PARTS)

    assert_same_state(parts, whole, rtol=1e-4, atol=1e-6)
    assert parts.state.global_step == whole.state.global_step == (4 if whole.task.critic_steps == 2 else 6)
    for one, other in zip(history(parts), history(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


@every_game
def test_gradients_of_accumulated_steps_are_those_of_one_batch(game):
    found = []
    for cut in (WHOLE, PARTS):
        run = trainer(game, **{**SGD, "learning_rate": 0.0}, **cut, max_steps=1)
        found.append(gradients_of(run))
        run.train()
    whole, parts = found

    assert len(whole) == len(parts) == 1 + run.task.critic_steps
    for one, other in zip(whole, parts, strict=True):
        assert max(each.abs().max() for each in one) > 1e-3
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


@every_game
@pytest.mark.parametrize("cut", [WHOLE, PARTS], ids=["1", "4"])
def test_both_players_and_the_average_move(game, cut):
    before, run = state(trainer(game)), trained(game, **cut, max_steps=2)
    after, learned = state(run), {name for name, _ in run.discriminator.named_parameters()}
    still = {name for name, each in before.items() if torch.equal(after[name], each)}
    still = {name for name in still if "discriminator" not in name or name.partition(".")[2] in learned}

    # What is added to all logits changes no difference of them, and no hinge while every pair is inside the margin.
    assert still <= ({"discriminator.head.bias"} if game[0]["loss"] != "bce" else set())
    moved = {part: max((after[name] - each).abs().max() for name, each in before.items() if name.startswith(part))
             for part in ("average", "generator", "discriminator")}  # fmt: skip
    assert 0 < moved["average"] < moved["generator"]
    assert moved["discriminator"] > 0


@every_game
def test_what_is_logged_are_means_over_the_rows_of_an_update(game):
    logged = history(trained(game, **PARTS, max_steps=1, learning_rate=0.0))[0]

    run = trainer(game, **WHOLE)
    run.state.max_steps = 1
    (groups,), _ = run.get_batch_samples(iter(run.get_train_dataloader()), 1, torch.device("cpu"))
    of_discriminator = []
    for group in groups:
        run.discriminator.refine()
        of_discriminator.append(run.task.discriminator_loss(run.discriminator, run.model, group.batches[0]))
    of_generator = run.task.generator_loss(run.model, run.discriminator, groups[-1].batches[0])

    rows = 16 * run.task.critic_steps
    assert logged["d_loss"] == pytest.approx(sum(each.loss.item() for each in of_discriminator) / rows, rel=1e-4)
    assert logged["loss"] == pytest.approx(of_generator.item() / 16, rel=1e-4, abs=1e-6)
    names = {"d_accuracy_real": "real_right", "d_accuracy_fake": "fake_right", "d_accuracy_pairs": "pair_right",
             "critic_gap": "gap"}  # fmt: skip
    for name in run.task.tallied:
        judged = sum(getattr(each, names[name]).item() for each in of_discriminator)
        assert logged[name] == pytest.approx(judged / rows, rel=1e-4, abs=1e-6)


def test_a_new_discriminator_by_cross_entropy_knows_nothing():
    first = history(trained(({"loss": "bce"}, {**DENSE, "initializer_range": 1e-3}), **WHOLE, max_steps=1))[0]

    assert first["d_loss"] == pytest.approx(2 * math.log(2), rel=1e-3)
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-2)


@every_game
def test_the_discriminator_is_left_without_gradients_by_the_turn_of_the_generator(game):
    class Watch(TrainerCallback):
        seen = 0

        def on_pre_optimizer_step(self, *_, **__):
            assert all(each.grad is None for each in run.discriminator.parameters())
            assert all(each.requires_grad for each in run.discriminator.parameters())
            assert all(each.grad is not None for each in run.model.parameters())
            self.seen += 1

    run, watch = trainer(game, **SGD, **PARTS, max_steps=2), Watch()
    run.add_callback(watch)
    run.train()
    assert watch.seen == 2


def test_batch_norm_sees_micro_batches_so_that_accumulated_steps_are_near_those_of_one_batch():
    game = ({"loss": "bce"}, {**CONVOLUTIONS, "generator_norm": "batch"})
    whole, parts = trained(game, **WHOLE, max_steps=1), trained(game, **PARTS, max_steps=1)
    first, second = history(whole)[0], history(parts)[0]

    assert second["loss"] == pytest.approx(first["loss"], rel=0.1)
    assert second["loss"] != pytest.approx(first["loss"], rel=1e-5)
    found, norm = state(parts), "body.layers.1"
    assert torch.equal(found[f"average.{norm}.running_mean"], found[f"generator.{norm}.running_mean"])
    assert [int(state(run)[f"generator.{norm}.num_batches_tracked"]) for run in (whole, parts)] == [2, 8]


def test_a_run_resumed_in_the_middle_of_an_epoch_is_the_unbroken_one_to_the_bit(tmp_path):
    def made(folder):
        return trainer(
            NORMED, tmp_path / folder, train=images(75), **ADAM, num_train_epochs=2, logging_steps=2, save_steps=3,
            per_device_train_batch_size=4, gradient_accumulation_steps=2, save_strategy="steps",
        )  # fmt: skip

    unbroken = made("unbroken")
    unbroken.train()
    killed_after(made("broken"), 4)  # an epoch has five updates; the checkpoint stands at 3, between two logs
    resumed = made("broken")
    resumed.train(resume_from_checkpoint=True)

    assert unbroken.state.global_step == 10
    assert "d_accuracy_fake" in history(unbroken)[0]
    assert same(resumed, unbroken)


def test_a_finished_training_that_is_resumed_ends_as_it_was(tmp_path):
    options = {**ADAM, "max_steps": 4, "save_steps": 4, "save_strategy": "steps", "per_device_train_batch_size": 8}
    first = trainer(NORMED, tmp_path, **options)
    first.train()
    again = trainer(NORMED, tmp_path, **options)
    again.train(resume_from_checkpoint=True)

    for name, each in state(first).items():
        assert torch.equal(state(again)[name], each), name


def test_the_best_average_comes_back_with_both_players_of_its_step(tmp_path, monkeypatch):
    options = {**ADAM, "max_steps": 4, "save_steps": 1, "save_strategy": "steps", "eval_strategy": "steps",
               "eval_steps": 1, "per_device_train_batch_size": 8, "load_best_model_at_end": True}  # fmt: skip
    kept = {}

    class Watch(TrainerCallback):
        def on_step_end(self, _args, now, *_, **__):
            kept[now.global_step] = {
                **{f"average.{name}": each.clone() for name, each in run.average.network.state_dict().items()},
                **{f"generator.{name}": each.clone() for name, each in run.model.state_dict().items()},
                **{f"discriminator.{name}": each.clone() for name, each in run.discriminator.state_dict().items()},
            }

    run = trainer(NORMED, tmp_path, evaluate=images(9, 1), **options)
    distances = iter([0.5, 0.2, 0.4, 0.3])
    monkeypatch.setattr(type(run.task), "score", lambda *_, **__: {"swd": Score(next(distances), n=9)})
    run.add_callback(Watch())
    run.train()

    assert run.state.best_global_step == 2
    for name, each in state(run).items():
        assert torch.equal(each, kept[2][name]), name


def test_each_player_has_its_own_rate_and_schedule():
    task = {"loss": "bce", "discriminator_learning_rate": 4e-3}
    run = trainer((task, DENSE), **ADAM, max_steps=6, per_device_train_batch_size=8)
    run.train()
    rates = [(row["learning_rate"], row["d_learning_rate"]) for row in run.history if "d_learning_rate" in row]

    assert rates[2] == pytest.approx((1e-3, 4e-3))  # after two steps of warm-up
    for rate, of_discriminator in rates:
        assert of_discriminator == pytest.approx(4 * rate)


def test_a_discriminator_at_a_rate_of_0_stands_still():
    run = trainer(({"loss": "bce", "discriminator_learning_rate": 0.0}, DENSE), **SGD, max_steps=2)
    before = state(run)
    run.train()

    after = state(run)
    assert all(torch.equal(after[name], each) for name, each in before.items() if name.startswith("discriminator"))
    assert not torch.equal(after["generator.body.layers.0.weight"], before["generator.body.layers.0.weight"])


def test_what_is_judged_and_shown_on_the_way_is_the_average():
    run = trainer(GAMES["bce"], **SGD, max_steps=3)
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_, **__):
            seen.append((run.answerer is run.sampled_model(), run.sampled_model() is run.average.network))

    run.add_callback(Watch())
    run.train()
    assert seen == [(True, True)] * 3


def test_without_an_average_the_last_weights_are_kept():
    run = trainer(({"loss": "bce", "ema_decay": 0.0}, DENSE), **SGD, max_steps=2)
    run.train()

    assert (run.average, run.raw) == (None, None)
    assert run.answerer is run.sampled_model() is run.model
