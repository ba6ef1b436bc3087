"""Options that change what is learned or how fast, each held against its paper's definition."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from tiny_training import SGD, Parity, collate, model, rows, trainer
from torch.nn import functional as F

from finetune.errors import UserError
from finetune.tasks.labels import summed_loss
from finetune.training import regularising
from finetune.training.regularising import loss


def batch(count: int = 6) -> dict[str, Any]:
    made = collate(list(rows(count)))
    return {name: each for name, each in made.items() if name not in ("row", "row_id", "index")}


def args(**given: Any) -> Any:
    plain = {"rdrop_alpha": None, "adversarial": None, "adversarial_epsilon": 1.0, "adversarial_steps": 3,
             "adversarial_step_size": 0.3}  # fmt: skip
    return SimpleNamespace(**(plain | given))


class Drawn:
    """A model whose next answers are given."""

    def __init__(self, *logits: torch.Tensor) -> None:
        self.left = list(logits)

    def __call__(self, **_: Any) -> Any:
        return SimpleNamespace(logits=self.left.pop(0))


def test_rdrop_is_the_mean_loss_and_the_symmetric_divergence_as_scipy_has_it() -> None:
    given, random = batch(), torch.Generator().manual_seed(1)
    one, other = torch.randn(6, 3, generator=random), torch.randn(6, 3, generator=random)

    total, _ = loss(args(rdrop_alpha=0.7), Parity(), Drawn(one, other), given)

    p, q = (softmax(each.numpy().astype(float), axis=1) for each in (one, other))
    apart = (rel_entr(p, q).sum() + rel_entr(q, p).sum()) / 2
    hard = sum(float(Parity().loss(Drawn(each), given)[0]) for each in (one, other)) / 2
    assert float(total) == pytest.approx(hard + 0.7 * apart, rel=1e-5)


def test_tokens_that_are_no_targets_are_not_held_against_each_other() -> None:
    from finetune.objectives.consistency import apart

    one, other = (torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    labels = torch.tensor([[1, 2, -100, -100], [0, -100, -100, -100]])

    expected = apart(one[0, :2], other[0, :2], labels[0, :2]) + apart(one[1, :1], other[1, :1], labels[1, :1])
    torch.testing.assert_close(apart(one, other, labels), expected)


def masks_apart(network: Any) -> float:
    """Return how far two dropout masks' answers lie apart on rows that were not trained on."""
    network.train()
    torch.manual_seed(3)
    given = collate(list(rows(64, seed=9)))
    with torch.no_grad():
        one, other = (network(given["input_ids"], given["attention_mask"]).logits for _ in range(2))
    return float((one.softmax(1) - other.softmax(1)).abs().sum(1).mean())


def test_rdrop_brings_two_dropout_masks_together(tmp_path) -> None:
    found = {}
    for alpha in (0.0, 5.0):
        run = trainer(
            tmp_path / str(alpha), train=rows(64), network=model(dropout=0.3), rdrop_alpha=alpha, num_train_epochs=6
        )
        run.train()
        found[alpha] = masks_apart(run.model)

    assert found[5.0] < 0.7 * found[0.0]


def test_fgm_moves_each_row_along_its_own_gradient_by_epsilon() -> None:
    network, given, epsilon = model(), batch(), 0.5
    table = network.get_input_embeddings()

    total, _ = loss(args(adversarial="fgm", adversarial_epsilon=epsilon), Parity(), network, given)

    expected = 0.0
    for row in range(6):  # one at a time, by the paper's formula
        alone = {name: each[row : row + 1] for name, each in given.items()}
        place = table(alone["input_ids"]).detach().requires_grad_()

        def asked(vectors: torch.Tensor, alone: dict[str, Any] = alone) -> torch.Tensor:
            logits = network(inputs_embeds=vectors, attention_mask=alone["attention_mask"]).logits
            return F.cross_entropy(logits, alone["labels"], torch.tensor(Parity().weights), reduction="sum")

        plain = asked(place)
        (slope,) = torch.autograd.grad(plain, place)
        expected += (plain + asked(place + epsilon * slope / slope.norm())).item() / 2
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("adapter", [False, True])
def test_every_further_pass_is_worse_for_the_model_and_stays_near(monkeypatch, adapter) -> None:
    losses, ways = [], []
    network, given = model(adapter=adapter), batch()
    task = Parity()

    class Watched(Parity):
        def loss(self, model: Any, batch: dict[str, Any]) -> Any:
            found = task.loss(model, batch)
            losses.append(found[0].item())
            return found

    onward = regularising._onward
    monkeypatch.setattr(regularising, "_onward", lambda *given: ways.append(onward(*given)) or ways[-1])
    options = {"adversarial_steps": 4, "adversarial_step_size": 0.4, "adversarial_epsilon": 1.0}
    total, _ = loss(args(adversarial="freelb", **options), Watched(), network, given)
    total.backward()

    assert len(losses) == 4
    assert min(losses[1:]) > losses[0]
    assert total.item() == pytest.approx(np.mean(losses), rel=1e-5)
    lengths = [float(each[0].flatten(1).norm(dim=1).max()) for each in ways]
    assert lengths[0] == pytest.approx(0.4, rel=1e-4)
    assert max(lengths) <= 1.0 + 1e-5
    assert all(each.grad is not None for name, each in network.named_parameters() if "query.lora_B" in name)
    assert not network.get_input_embeddings()._forward_hooks


def test_trained_against_moved_embeddings_a_model_withstands_them_better(tmp_path) -> None:
    found = {}
    for kind in (None, "fgm"):
        run = trainer(tmp_path / str(kind), train=rows(96), adversarial=kind, num_train_epochs=25)
        run.train()
        run.model.eval()
        attacked, _ = loss(args(adversarial="fgm"), Parity(), run.model, batch(96))
        plain, _ = loss(args(), Parity(), run.model, batch(96))
        found[kind] = (2 * attacked - 2 * plain).item()  # what the move alone costs

    assert found["fgm"] < found[None]


def test_blocks_learn_the_slower_the_deeper_they_lie() -> None:
    run = trainer(train=rows(16), network=model(layers=3), max_steps=1, layer_decay=0.5, learning_rate=0.08, **SGD)
    run.train()

    rates = {}
    for group in run.optimizer.param_groups:
        for name, each in run.model.named_parameters():
            if any(each is one for one in group["params"]):
                rates[name] = group["lr"]
    assert rates["classifier.weight"] == rates["bert.pooler.dense.weight"] == 0.08
    layers = [rates[f"bert.encoder.layer.{number}.output.dense.weight"] for number in range(3)]
    assert layers == pytest.approx([0.01, 0.02, 0.04])
    assert rates["bert.embeddings.word_embeddings.weight"] == pytest.approx(0.005)


@pytest.mark.parametrize("adapter", [False, True])
def test_frozen_blocks_and_embeddings_keep_their_bits(adapter) -> None:
    network = model(layers=3, adapter=adapter)
    before = {name: each.detach().clone() for name, each in network.named_parameters()}
    run = trainer(train=rows(32), network=network, freeze_layers=2)
    run.train()

    moved = {name for name, each in run.model.named_parameters() if not torch.equal(each, before[name])}
    assert any(".layer.2." in name for name in moved)
    assert not [name for name in moved if ".layer.0." in name or ".layer.1." in name or "embeddings" in name]


@pytest.mark.parametrize("weighted", [None, (1.0, 3.0, 0.5)])
def test_smoothed_labels_are_a_mixture_of_the_target_and_of_all(weighted) -> None:
    logits, labels = torch.randn(8, 3, generator=torch.Generator().manual_seed(2)), torch.arange(8) % 3
    rows = torch.ones(8) if weighted is None else torch.tensor(weighted)[labels]

    found = summed_loss(logits, labels, "single", None if weighted is None else torch.tensor(weighted), 0.3)

    wanted = 0.7 * F.one_hot(labels, 3) + 0.1
    torch.testing.assert_close(found, (rows * -(wanted * logits.log_softmax(1)).sum(1)).sum())


def test_neftune_adds_noise_while_training_alone(run, weights, tmp_path) -> None:
    plain = run("text-classification", train={"output_dir": str(tmp_path / "plain"), "neftune_noise_alpha": None})
    noisy = run("text-classification", train={"output_dir": str(tmp_path / "noisy"), "neftune_noise_alpha": 5.0})
    still = run(
        "text-classification",
        train={"output_dir": str(tmp_path / "still"), "neftune_noise_alpha": 5.0, "learning_rate": 0.0},
    )

    assert any(not torch.equal(each, weights(noisy)[name]) for name, each in weights(plain).items())
    assert json.loads((still / "reload.json").read_text())["same"]  # no hook is left in what answers


@pytest.mark.parametrize(
    ("kind", "options", "line"),
    [
        ("text-classification", {"train": {"rdrop_alpha": 1.0}}, "this model has no dropout"),
        ("text-classification", {"train": {"freeze_layers": 9}}, "this model has 2 blocks of layers"),
        ("text-classification", {"train": {"freeze_layers": -1}}, "give 0 or more"),
        ("text-classification", {"train": {"layer_decay": 1.5}}, "above 0 and up to 1"),
        ("text-classification", {"train": {"rdrop_alpha": -1.0}}, "give 0 or more, such as 1"),
        ("text-classification", {"train": {"rdrop_alpha": 1.0, "adversarial": "fgm"}}, "leave one out"),
        ("text-classification", {"train": {"adversarial": "freelb", "adversarial_steps": 0}}, "give 1 or more"),
        ("text-classification", {"train": {"adversarial": "fgm", "adversarial_epsilon": 0.0}}, "give a number above 0"),
        ("text-classification", {"task": {"label_smoothing": 1.0}}, "it is a share, from 0 to below 1"),
        ("image-vae", {"train": {"rdrop_alpha": 1.0}}, "image-vae has no answers to hold against each other"),
        ("image-vae", {"train": {"adversarial": "fgm"}}, "moves token embeddings, and image-vae has none"),
        ("image-vae", {"train": {"layer_decay": 0.9}}, "this model has none"),
        ("image-gan", {"train": {"adversarial": "fgm"}}, "train.adversarial does not work with adversarial training"),
    ],
)
def test_what_has_nothing_to_act_on_is_refused_in_one_line(run, kind, options, line) -> None:
    with pytest.raises(UserError, match=line) as raised:
        run(kind, **options)
    assert "\n" not in str(raised.value)
