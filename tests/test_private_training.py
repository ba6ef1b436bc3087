"""Private training: what it does to gradients, what it spends, and that what is trained is what is saved."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml

from finetune import artefact
from finetune.cli import main
from finetune.recipe import Recipe
from finetune.run import train
from finetune.training.private import Poisson, secret
from finetune.training.private_options import DpOptions, noise_for, spent

FREE = {"noise_multiplier": 0, "max_grad_norm": math.inf}  # no noise, no cut: plain training
WHOLE = {
    "per_device_train_batch_size": 64,
    "num_train_epochs": 3,
    "learning_rate": 0.5,
}  # all 64 rows in every step, of either kind


@pytest.mark.parametrize("kind", ["text-classification", "token-classification"])
@pytest.mark.parametrize("pieces", [1, 4])
def test_without_noise_and_cut_it_is_plain_training(run, tmp_path, sections, weights, contract, kind, pieces):
    """Token classification has rows of different weight: one word a row makes them alike."""
    changes = {"task": {"max_length": 3}, "data": {"on_long": "truncate"}} if kind == "token-classification" else {}
    plain = weights(run(kind, "lora", **changes, train={**WHOLE, "output_dir": str(tmp_path / "plain")}))
    cut = {"per_device_train_batch_size": 64 // pieces, "gradient_accumulation_steps": pieces}
    changes["train"] = {**WHOLE, **cut, "dp": FREE, "output_dir": str(tmp_path / "private")}

    private = weights(run(kind, "lora", **{"task": {}, "data": {}, **changes}))

    furthest = max(float((plain[name] - private[name]).abs().max()) for name in plain)
    moved = max(float(each.abs().max()) for name, each in private.items() if "lora_B" in name)
    assert moved > 1e-4  # from zero
    assert furthest < 5e-6
    contract("P3", plain_differs_at_most=furthest)


@pytest.mark.parametrize("word", [0, 311, 623])
def test_every_word_of_the_generators_state_is_drawn_from_the_system(monkeypatch, word):
    drawn = bytearray(range(256)) * 10
    monkeypatch.setattr("os.urandom", lambda count: bytes(drawn[:count]))
    first = torch.randn(1000, generator=secret())
    again = torch.randn(1000, generator=secret())
    drawn[4 * word + 3] ^= 128
    other = torch.randn(1000, generator=secret())

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.fixture
def trainer(sections, write_recipe):
    """Return a function that makes the trainer of a private recipe, ready for a step."""
    from transformers import set_seed

    from finetune.preparation import prepare
    from finetune.run import build_trainer, load_model

    def make(kind="text-classification", **dp):
        prepared = prepare(Recipe.read(write_recipe(sections(kind, "lora", train={"dp": {"delta": 1e-3, **dp}}))))
        set_seed(1)
        model, new = load_model(prepared.recipe, prepared.processor)
        made = build_trainer(prepared, model, new)
        made.noise = noise_for(made.dp, 0.25, 10)
        made.state.max_steps = 10
        made._tr_loss = torch.zeros(())  # as `train` begins
        return made

    return make


def gradients(trainer, count=1):
    """Return the gradients of a step with the first rows, flat."""
    collate = trainer.data_collator
    rows = [{**trainer.train_dataset[at], "index": at} for at in range(count)]
    batches, weight = trainer.get_batch_samples(
        iter([{"rows": [collate([row]) for row in rows]}]), 1, torch.device("cpu")
    )
    trainer.training_step(trainer.model, batches[0], weight)
    return torch.cat([each.grad.flatten() for each in trainer.model.parameters() if each.requires_grad])


def test_the_noise_is_gaussian_with_the_deviation_that_was_asked_for(trainer, contract):
    from scipy import stats

    made = trainer(noise_multiplier=2.0, max_grad_norm=0.5)
    told = gradients(made, 0).double().cpu().numpy() / (2.0 * 0.5 / 16)  # 16 rows are expected
    again = gradients(made, 0).double().cpu().numpy() / (2.0 * 0.5 / 16)

    count = len(told)
    assert count > 500
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], count) / count
    assert low < float((told**2).mean()) < high
    assert stats.kstest(told, "norm").pvalue > 1e-6
    assert abs(float((told * again).mean())) < 5 / count**0.5  # another draw each step
    contract("P3", noise_variance_of_one=float((told**2).mean()))


def test_two_trainers_of_one_seed_draw_other_noise_and_other_rows(trainer):
    """What a seed of the recipe would give back could be taken away again."""
    one, other = (gradients(trainer(noise_multiplier=1.0), 0) for _ in range(2))

    assert not torch.equal(one, other)
    assert list(Poisson(64, 16, 1)) != list(Poisson(64, 16, 1))


def test_a_row_moves_the_gradients_by_no_more_than_its_cut(trainer):
    made = trainer(noise_multiplier=0, max_grad_norm=0.01)

    for count in (1, 2, 5):
        assert float(gradients(made, count).norm()) <= count * 0.01 / 16 * (1 + 1e-5)
    assert float(gradients(made, 1).norm()) == pytest.approx(0.01 / 16, rel=1e-4)  # it would be longer


def test_how_many_tokens_the_rows_of_a_step_had_is_not_told(trainer):
    made = trainer(noise_multiplier=1.0)
    gradients(made, 3)
    made.log({"loss": 1.0, "learning_rate": 0.1})

    assert made.state.num_input_tokens_seen == 0
    assert made.history[-1].keys() == {"learning_rate", "epoch", "step"}


def test_a_row_is_in_a_step_by_chance_and_apart_from_the_others():
    sampler = Poisson(200, 20, 4)
    steps, held = [], list(sampler)
    while held:
        parts, held = held[:4], held[4:]
        steps.append([row for part in parts for row in part if row >= 0])
    counts = []
    for _ in range(60):
        counts += [sum(row >= 0 for row in piece) for piece in sampler]

    assert len(steps) == 10
    assert len(sampler) == 40
    assert all(len(set(step)) == len(step) for step in steps)
    sums = np.array(counts).reshape(-1, 4).sum(axis=1)
    assert abs(sums.mean() - 20) < 5 * (200 * 0.1 * 0.9 / len(sums)) ** 0.5
    assert 0.7 < sums.var() / 18 < 1.4  # a binomial's, and not the 0 of batches of one size
    assert [~0] in list(Poisson(50, 1, 3))  # a micro-batch without a row


def independent(noise, rate, steps, delta):
    """Epsilon by quadrature of the Rényi divergence (Mironov et al. 2019) and Balle et al. 2020, theorem 21."""
    z = np.linspace(-40 * noise, 40 * noise + 60, 400_001)
    density = -(z**2) / (2 * noise**2) - np.log(noise * np.sqrt(2 * np.pi))
    ratio = np.logaddexp(np.log1p(-rate) if rate < 1 else -np.inf, np.log(rate) + (2 * z - 1) / (2 * noise**2))
    found = []
    for order in [1 + each / 10 for each in range(1, 100)] + list(range(12, 64)):
        exponent = density + order * ratio
        top = exponent.max()
        moment = top + np.log(np.exp(exponent - top).sum() * (z[1] - z[0]))
        divergence = steps * moment / (order - 1)
        found.append(divergence + np.log1p(-1 / order) - (np.log(delta) + np.log(order)) / (order - 1))
    return min(found)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta"),
    [
        (1.1, 0.02, 300, 1e-5),
        (0.7, 0.05, 200, 1e-4),
        (2.0, 0.1, 1000, 1e-6),
        (4.0, 1.0, 20, 1e-5),
        (0.9, 0.004, 4000, 1e-5),
    ],
)
def test_epsilon_is_that_of_an_independent_accountant(contract, noise, rate, steps, delta):
    mine = independent(noise, rate, steps, delta)
    apart = abs(spent(noise, rate, steps, delta) / mine - 1)

    assert apart < 0.01
    contract("P3", epsilon_differs_at_most=apart)


def test_the_noise_for_an_epsilon_spends_it_and_no_more():
    for epsilon in (0.5, 3.0, 10.0):
        noise = noise_for(DpOptions(epsilon=epsilon), 0.02, 300)
        assert 0.97 * epsilon < spent(noise, 0.02, 300, 1e-5) <= epsilon
    assert spent(0.0, 0.02, 300, 1e-5) is None
    assert spent(1.0, 0.02, 0, 1e-5) == 0


HIDDEN = ("tokens", "tokens_per_second")  # of rows that were drawn in secret
PRIVATE = {"epsilon": 8, "delta": 1e-3, "max_grad_norm": 0.5}


@pytest.mark.parametrize("kind", ["causal-lm", pytest.param("masked-lm", marks=pytest.mark.slow), "seq2seq"])
def test_what_is_trained_is_saved_and_what_was_spent_is_told(run, weights, capsys, contract, kind):
    folder = run(
        kind, "lora", train={"dp": PRIVATE, "learning_rate": 0.5, "num_train_epochs": 2, "dataloader_num_workers": 0}
    )

    said = capsys.readouterr().out
    told = artefact.read_json(folder / artefact.ENVIRONMENT)["privacy"]
    moved = max(float(each.abs().max()) for name, each in weights(folder).items() if "lora_B" in name)
    assert moved > 1e-6  # from zero, where it starts: saved weights are the live ones
    assert artefact.read_json(folder / artefact.VERDICT)["same"]  # of the live model's logits and the reloaded one's
    assert told["steps"] == 8
    assert told["sample_rate"] == 0.25
    assert 0.97 * 8 < told["epsilon"] <= 8
    assert told["epsilon"] == pytest.approx(independent(told["noise_multiplier"], 0.25, 8, 1e-3), rel=0.01)
    assert "private: ε = " in said
    history = artefact.read_json(folder / artefact.HISTORY)
    assert not any(name in record for record in history for name in (*HIDDEN, "loss", "train_loss"))
    assert artefact.read_json(folder / artefact.ENVIRONMENT)["tokens_seen"] is None
    assert "Differential privacy: ε = " in (folder / "README.md").read_text(encoding="utf-8")
    report = (folder / artefact.REPORT).read_text(encoding="utf-8")
    assert "private: ε = " in report
    assert "<li>finished</li>" in report
    contract("P3", runs_saved_as_trained=1)


def test_a_resumed_run_counts_on(sections, write_recipe, capsys, monkeypatch):
    options = {"dp": PRIVATE, "save_strategy": "steps", "save_steps": 3, "num_train_epochs": 2}
    made = sections("text-classification", "lora", train=options)
    recipe = Recipe.read(write_recipe(made))
    from finetune.training.private import PrivateTrainer

    step = PrivateTrainer.training_step

    def stops(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(PrivateTrainer, "training_step", stops)
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    monkeypatch.setattr(PrivateTrainer, "training_step", step)
    told = artefact.read_json(train(Recipe.read(write_recipe(made))) / artefact.ENVIRONMENT)["privacy"]

    assert "resuming from" in capsys.readouterr().out
    assert told["steps"] == 8
    assert told["epsilon"] == pytest.approx(spent(told["noise_multiplier"], 0.25, 8, 1e-3))


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("text-classification", {"train": {"dp": {}}}, "train.dp needs epsilon or noise_multiplier, one of the two"),
        ("text-classification", {"train": {"dp": {"epsilon": 1, "noise_multiplier": 1}}}, "leave one of them out"),
        ("text-classification", {"train": {"dp": {"epsilon": -1}}}, "train.dp.epsilon is -1"),
        ("text-classification", {"train": {"dp": {"epsilon": 1, "delta": 2}}}, "train.dp.delta is 2"),
        ("text-classification", {"train": {"dp": {"epsilom": 1}}}, "epsilom"),
        ("text-classification", {"train": {"dp": {"noise_multiplier": 1, "max_grad_norm": 0}}}, "max_grad_norm is 0"),
        ("causal-lm", {"train": {"dp": PRIVATE}, "task": {"pack": True}}, "train.dp and task.pack do not go together"),
        ("text-classification", {"train": {"dp": PRIVATE, "train_sampling_strategy": "group_by_length"}},
         "train.dp and train.train_sampling_strategy do not go together"),
        ("text-classification", {"train": {"dp": PRIVATE, "rdrop_alpha": 1.0}}, "train.dp and train.rdrop_alpha"),
        ("text-classification", {"train": {"dp": PRIVATE, "adversarial": "fgm"}}, "train.dp and train.adversarial"),
        ("text-classification", {"train": {"dp": PRIVATE}, "data": {"augment": {"copies": 1, "delete": 0.1}}},
         "train.dp and data.augment"),
        ("text-classification", {"train": {"dp": PRIVATE, "nan_budget": 1}}, "train.dp and train.nan_budget"),
        ("text-classification", {"train": {"dp": PRIVATE, "allow_change": ["max_steps"]}}, "say noise_multiplier"),
        ("text-classification", {"train": {"dp": PRIVATE, "max_grad_norm": 0.5}},
         "train.max_grad_norm: with train.dp say train.dp.max_grad_norm"),
        ("text-classification", {"train": {"dp": PRIVATE, "max_grad_norm": 1.0}},  # what it is where it is left out
         "train.max_grad_norm: with train.dp say train.dp.max_grad_norm"),
        ("masked-lm", {"train": {"dp": PRIVATE}, "task": {"next_sentence": True}},
         "train.dp and task.next_sentence do not go together: it puts sentences of other rows into an input"),
        ("image-gan", {"train": {"dp": PRIVATE}}, "task.kind image-gan has none of a single row"),
        ("image-vae", {"train": {"dp": PRIVATE}}, "train.dp and model.config do not go together"),
        ("text-classification", {"train": {"dp": {"epsilon": 1, "delta": 0.5}}}, "is no promise for 64 rows"),
        ("text-classification", {"train": {"dp": PRIVATE, "per_device_train_batch_size": 65}}, "there are 64"),
        ("token-classification", {"train": {"dp": PRIVATE}, "task": {"max_length": 6}}, "one row makes several inputs"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_it_is_refused_in_one_line(sections, tmp_path, capsys, kind, changes, said):
    adapter = "whole" if kind.startswith("image") else "lora"
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(sections(kind, adapter, **changes)), encoding="utf-8")

    assert main(["train", str(tmp_path / "r.yaml")]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in told
    assert not (tmp_path / "run").exists()
