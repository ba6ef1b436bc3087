"""Autoencoders of texts: the sentences they write, what their latent is found to carry, every option in a recipe."""

from __future__ import annotations

import json
from itertools import product

import pytest
import torch
import yaml

from finetune.cli import main
from finetune.models.text_vae import TextVAE, TextVAEConfig
from finetune.models.text_vae_recurrent import RecurrentEncoder
from finetune.tasks.text_latents import straight
from finetune.tasks.text_vae import TextVAETask
from finetune.tasks.text_vae_examination import _alarms, _latent_scores, log_weights


def found(run, name="scores.json"):
    return json.loads((run / name).read_text(encoding="utf-8"))


def tiny(**options) -> TextVAE:
    torch.manual_seed(0)
    config = {"latent_dim": 3, "vocab_size": 30, "embedding_size": 8, "hidden_size": 8, "bos_token_id": 0}
    return TextVAE(TextVAEConfig(**{**config, "eos_token_id": 1, "pad_token_id": 2, **options})).eval()


def texts(lengths) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the decoder reads and what must follow, padded on the right."""
    generator = torch.Generator().manual_seed(1)
    ids, targets = torch.full((len(lengths), max(lengths)), 2), torch.full((len(lengths), max(lengths)), -100)
    for row, length in enumerate(lengths):
        words = torch.randint(3, 30, (length - 1,), generator=generator)
        ids[row, :length] = torch.cat((torch.tensor([0]), words))
        targets[row, :length] = torch.cat((words, torch.tensor([1])))
    return ids, targets


def test_the_bound_is_summed_over_a_texts_tokens_and_does_not_see_padding():
    model, (ids, targets) = tiny(), texts([4, 9])
    both = model(ids, targets)
    alone = model(ids[:1, :4], targets[:1, :4])

    torch.testing.assert_close(both.reconstruction[:1], alone.reconstruction)
    torch.testing.assert_close(both.mean[:1], alone.mean)
    each = -both.logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(both.reconstruction, (each * (targets != -100)).sum(1))
    assert both.loss.item() == pytest.approx((both.reconstruction + both.kl.sum(1)).mean().item(), rel=1e-5)


def test_a_decoder_that_is_told_its_state_goes_on_as_if_it_read_everything():
    model, (ids, _) = tiny(), texts([7, 7])
    latent = torch.randn(2, 3, generator=torch.Generator().manual_seed(2))
    whole, _ = model.decoder(ids, latent)
    first, state = model.decoder(ids[:, :3], latent)
    rest, _ = model.decoder(ids[:, 3:], latent, None, state)

    torch.testing.assert_close(torch.cat((first, rest), dim=1), whole)


def test_what_is_written_ends_before_its_end_and_is_never_longer_than_asked():
    model, latent = tiny(), torch.randn(40, 3, generator=torch.Generator().manual_seed(3))
    draw = torch.Generator().manual_seed(4)
    drawn = model.write(latent, 12, 1.0, draw)

    assert all(len(each) <= 12 and 1 not in each for each in drawn)
    assert len({tuple(each) for each in drawn}) > 30
    assert any(len(each) < 12 for each in drawn)
    assert model.write(latent, 12) == model.write(latent, 12)
    assert model.write(latent, 12, 1.0, torch.Generator().manual_seed(4)) == drawn


def test_word_dropout_blanks_words_and_never_the_token_that_opens_a_text():
    from finetune.models import noise

    heard = []

    class Listener(torch.nn.Module):
        config = TextVAEConfig(latent_dim=3)

        def forward(self, **given):
            heard.append(given["dropped"])
            rows = len(given["input_ids"])
            return type("Outputs", (), {"reconstruction": torch.zeros(rows), "kl": torch.zeros(rows, 3)})

    batch = {"input_ids": torch.ones(500, 9, dtype=torch.int64), "labels": torch.ones(500, 9, dtype=torch.int64)}
    batch |= {"keys": noise.keys(0, 0, torch.arange(500)), "progress": torch.tensor(0.5)}
    TextVAETask(word_dropout=0.4).loss(Listener(), batch)
    TextVAETask(word_dropout=0.0).loss(Listener(), batch)

    assert not heard[0][:, 0].any()
    assert heard[0][:, 1:].float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert heard[1] is None


class Reader:
    """A writer of batches that are there already."""

    def __init__(self, model):
        self.model, self.task = model, TextVAETask()

    def read(self, batch):
        with torch.no_grad():
            return self.model.encode(batch["input_ids"], (batch["labels"] != -100).long())


def test_the_importance_weighted_likelihood_is_exact_where_the_latent_is_not_heard_and_grows_where_it_is():
    model, (ids, targets) = tiny(), texts([6, 8, 5])
    batch = {"input_ids": ids, "labels": targets}
    zero = torch.zeros(3, 3)
    deaf = tiny()
    with torch.no_grad():
        deaf.decoder.opening.weight.zero_()
        deaf.decoder.gru.weight_ih_l0[:, 8:] = 0.0
        plain = deaf(ids, targets).reconstruction
        weights = log_weights(Reader(deaf), batch, zero, zero, 5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights, -plain.double().expand(5, -1), rtol=1e-5, atol=1e-5)

    wide = zero + 1.0
    draws = log_weights(Reader(model), batch, zero, wide, 4096, torch.Generator().manual_seed(0))
    bounds = [
        float((draws.view(k, -1, 3).logsumexp(dim=0) - torch.tensor(float(k)).log()).mean()) for k in (1, 8, 64, 4096)
    ]
    assert bounds == sorted(bounds)


def test_with_shuffled_latents_nobody_keeps_their_own(monkeypatch):
    """A decoder that only says how far its latent lies from the row's own: own 0, and never 0 for another's."""
    from datasets import Dataset

    rows = 70
    own = torch.arange(float(rows))[:, None].expand(rows, 3) * 10
    monkeypatch.setattr("finetune.tasks.text_vae_examination.collate", lambda inputs, processor: {
        "input_ids": torch.tensor([each["row"] for each in inputs])[:, None],
        "labels": torch.zeros(len(inputs), 1, dtype=torch.int64),
    })  # fmt: skip
    monkeypatch.setattr("finetune.tasks.text_vae_examination._cost", lambda writer, batch, latent: (
        (latent - own[batch["input_ids"][:, 0]]).abs().amax(-1) > 5).double())  # fmt: skip

    class Told:
        processor = None

        def read(self, batch):
            return own[batch["input_ids"][:, 0]], torch.full((len(batch["labels"]), 3), -20.0)

    facts: dict = {}
    scores = _latent_scores(Told(), Dataset.from_dict({"row": list(range(rows))}), 1, 0, facts)

    assert scores["perplexity_own_z"] == pytest.approx(1.0)
    assert scores["perplexity_shuffled_z"] == pytest.approx(torch.tensor(1.0).exp().item())  # all of them wrong
    assert scores["mutual_information"] == pytest.approx(torch.tensor(70.0).log().item(), abs=1e-3)
    assert len(facts["kl_per_dimension"]) == 3


def test_a_deaf_decoder_sets_off_an_alarm_and_one_that_listens_does_not():
    assert _alarms({"perplexity_own_z": 10.0, "perplexity_shuffled_z": 10.1})[0].startswith("The latent has collapsed")
    assert _alarms({"perplexity_own_z": 10.0, "perplexity_shuffled_z": 11.0}) == []


def test_a_walk_is_straight_and_begins_and_ends_at_its_texts():
    first, last = torch.zeros(3), torch.tensor([4.0, 2.0, -2.0])

    walk = straight(first, last, 5)
    assert torch.equal(walk[0], first)
    assert torch.equal(walk[-1], last)
    torch.testing.assert_close(walk[1:] - walk[:-1], (last / 4).expand(4, -1))


@pytest.mark.parametrize(
    "task",
    [{"kl_schedule": "cyclical", "cycles": 2, "kl_warmup": 0.5}, {"beta": 0.0}, {"between": ["a film", "my evening"]}],
    ids=["cyclical", "autoencoder", "between"],
)
def test_a_run_says_what_its_latent_carries_and_shows_sentences(run, task):
    folder = run("text-vae", task=task, train={"max_steps": 3}, evaluate={"importance_samples": 4, "generated": 10})
    scores, facts = found(folder)["test"], found(folder, "examination.json")
    written = (folder / "samples" / "after.txt").read_text(encoding="utf-8")

    assert scores["nelbo"]["value"] == pytest.approx(scores["reconstruction"]["value"] + scores["kl"]["value"])
    assert sum(facts["kl_per_dimension"]) == pytest.approx(scores["kl"]["value"], abs=1e-2)
    assert {"iw_nll", "perplexity_iw", "perplexity_own_z", "perplexity_shuffled_z"} <= set(scores)
    assert {"mutual_information", "reconstruction_bleu", "active_units"} <= set(scores)
    assert written.startswith("from the prior\n")
    assert "between two sentences\n" in written
    assert len(facts["reconstructions"]) == 8
    assert "Held-out texts, and what becomes of them" in (folder / "report.html").read_text(encoding="utf-8")


def test_free_bits_keep_the_latent_in_use_on_sentences_that_can_be_learned(run, home, tmp_path):
    whose = product(("the dog", "a girl", "my old boat", "nobody"), ("saw", "wanted", "made", "lost"))
    lines = [f"{who} {does} {what}." for who, does in whose for what in ("a red ball", "the long night", "it", "milk")]
    for name, part in (("train", lines[:56]), ("test", lines[56:])):
        (tmp_path / f"{name}.txt").write_text("\n".join(part), encoding="utf-8")
    data = {"train": str(tmp_path / "train.txt"), "test": str(tmp_path / "test.txt"), "validation": None}
    folder = run(
        "text-vae",
        task={"free_bits": 6.0, "word_dropout": 0.6, "kl_warmup": 0.3, "max_length": 40, "vocab_size": 330},
        data={**data, "sample_by": "line"},
        model={"config": {"model_type": "finetune-text-vae", "latent_dim": 4, "hidden_size": 48, "embedding_size": 32}},
        train={"optim": "adamw_torch", "learning_rate": 0.01, "num_train_epochs": 60, "max_grad_norm": 5.0},
        evaluate={"importance_samples": 10},
    )
    scores = found(folder)["test"]

    assert scores["kl"]["value"] > 1
    assert scores["perplexity_shuffled_z"]["value"] > 1.2 * scores["perplexity_own_z"]["value"]
    assert found(folder, "examination.json")["alarms"] == []


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"word_dropout": 1.0}, "task.word_dropout: 1.0 is not between 0 and 0.95"),
        ({"kl_warmup": 2.0}, "task.kl_warmup: 2.0 is not between 0 and 1"),
        ({"between": ["one"]}, "task.between: give two texts, or none; 1 are given"),
        ({"kl_schedule": "cyclic"}, "Did you mean cyclical?"),
        ({"free_bit": 1.0}, "Did you mean free_bits?"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_2(sections, tmp_path, capsys, task, line):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(sections("text-vae", task=task)), encoding="utf-8")

    assert main(["train", str(path)]) == 2
    said = [each for each in capsys.readouterr().err.splitlines() if each.startswith("finetune: ")]
    assert len(said) == 1
    assert line in said[0]
    assert not (tmp_path / "run").exists()


def test_the_encoder_reads_both_ways_and_no_padding():
    encoder = RecurrentEncoder(30, 8, 8)
    ids = torch.randint(3, 30, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    other = ids.clone()
    other[0, 4:] = 7

    torch.testing.assert_close(encoder(ids, mask), encoder(other, mask))
    turned = ids.clone()
    turned[1, 0] = (ids[1, 0] + 1) % 30
    assert (encoder(ids, mask)[1] != encoder(turned, mask)[1]).float().mean() > 0.9
