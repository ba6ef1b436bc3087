"""Smaller models: exactly the units that were asked for go, and what is left is what a mask would leave."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.compressing import structure
from finetune.compressing.prune import prune, zero_smallest
from finetune.compressing.recovery import Recovery, hold_zeros
from finetune.compressing.saving import open_whole
from finetune.errors import UserError
from finetune.reuse import evaluate, load_run

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
FAMILIES = {
    "bert": SIZES,
    "roberta": SIZES,
    "electra": {**SIZES, "embedding_size": 16},
    "deberta-v2": SIZES,
    "modernbert": {**SIZES, "global_attn_every_n_layers": 1},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
    },
    "llama": SIZES,
    "mistral": {**SIZES, "num_key_value_heads": 4},
    "qwen2": {**SIZES, "num_key_value_heads": 2},
}


def model(family: str, auto=AutoModelForSequenceClassification, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=60, max_position_embeddings=40, pad_token_id=0, bos_token_id=1,
                                  eos_token_id=2, **{**FAMILIES[family], **changes})  # fmt: skip
    made = auto.from_config(config).eval()
    for weight in made.parameters():  # biases too: a unit with a bias is not zero where its weights are
        torch.nn.init.normal_(weight, std=0.1)
    return made


def asked(network) -> torch.Tensor:
    ids = torch.arange(3, 23).view(2, 10)
    with torch.no_grad():
        return network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def masked(network, blocks, kept) -> None:
    """Silence every other unit where it is read: an independent way to be without it."""
    for block in blocks:
        gone = sorted(set(range(block.units * block.width)) - {
            unit * block.width + place for unit in kept[block.name].tolist() for place in range(block.width)
        })  # fmt: skip
        weight = block.outward.weight.data
        if type(block.outward).__name__ == "Conv1D":
            weight[gone] = 0
        else:
            weight[:, gone] = 0


def reloaded(network, folder):
    network.save_pretrained(folder)
    return type(network).from_pretrained(folder).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_units_answers_as_one_that_masks_them_and_loads_with_transformers_alone(
    family, tmp_path
) -> None:
    big, small = model(family), model(family)
    form, blocks = structure.feed_forward_blocks(small)
    assert [block.units for block in blocks] == [48, 48]
    kept = {block.name: torch.randperm(48)[:29].sort().values for block in blocks}
    for block in blocks:
        structure.cut(block, kept[block.name])
    setattr(small.config, form.option, 29)
    masked(big, structure.feed_forward_blocks(big)[1], kept)

    expected = asked(big)
    torch.testing.assert_close(asked(small), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(asked(reloaded(small, tmp_path)), expected, rtol=1e-6, atol=1e-6)
    assert sum(each.numel() for each in small.parameters()) < sum(each.numel() for each in big.parameters())


@pytest.mark.parametrize(("family", "groups"), [("llama", 4), ("mistral", 2), ("qwen2", 2)])
def test_a_model_without_heads_answers_as_one_that_masks_them(family, groups, tmp_path) -> None:
    options = {"num_key_value_heads": groups, "head_dim": 8}
    big, small = (model(family, AutoModelForCausalLM, **options) for _ in "ab")
    kept = {block.name: torch.randperm(groups)[: groups // 2].sort().values for block in structure.head_blocks(small)}
    for block in structure.head_blocks(small):
        structure.cut(block, kept[block.name])
    small.config.num_key_value_heads, small.config.num_attention_heads = groups // 2, 2
    masked(big, structure.head_blocks(big), kept)

    torch.testing.assert_close(asked(reloaded(small, tmp_path)), asked(big), rtol=1e-6, atol=1e-6)


def test_the_first_order_effect_is_that_of_the_loss_when_a_unit_fades() -> None:
    """d loss / d m at m = 1 of a unit times m, row by row, by finite differences in fp64."""
    network = model("bert").double()
    blocks = structure.feed_forward_blocks(network)[1]
    ids, labels = torch.arange(3, 23).view(2, 10), torch.tensor([0, 1])

    def losses(batch):
        given, wanted = batch
        return torch.nn.functional.cross_entropy(network(input_ids=given).logits, wanted, reduction="sum")

    found = structure.taylor(blocks, losses, [(ids, labels)])
    block, step = blocks[0], 1e-6
    for unit in (0, 17, 47):
        expected, weight = 0.0, block.outward.weight.data
        for row in range(2):
            ends = []
            for factor in (1 + step, 1 - step):
                held = weight[:, unit].clone()
                weight[:, unit] *= factor
                with torch.no_grad():
                    ends.append(losses((ids[row : row + 1], labels[row : row + 1])).item())
                weight[:, unit] = held
            expected += abs(ends[0] - ends[1]) / (2 * step)
        assert found[block.name][unit].item() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_a_unit_that_nobody_reads_is_the_least_by_magnitude() -> None:
    network = model("gpt2")
    blocks = structure.feed_forward_blocks(network)[1]
    blocks[0].outward.weight.data[5] = 0

    assert int(structure.magnitude(blocks[0]).argmin()) == 5


def test_exactly_the_smallest_weights_of_the_whole_model_become_zero() -> None:
    network = model("gpt2")
    layers = [each for name, each in network.named_modules() if type(each).__name__ == "Conv1D"]
    before = torch.cat([each.weight.detach().flatten() for each in layers])
    count = zero_smallest(network, 0.6)
    after = torch.cat([each.weight.detach().flatten() for each in layers])

    assert count == round(0.6 * len(before)) == int((after == 0).sum())
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()
    assert bool((network.score.weight != 0).all())


def test_zeros_stay_zero_while_the_rest_learns() -> None:
    network = model("bert").train()
    zero_smallest(network, 0.5)
    hold_zeros(network)
    before = {name: each.detach().clone() for name, each in network.named_parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        network(input_ids=torch.arange(3, 23).view(2, 10)).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    weight, was = network.bert.encoder.layer[0].output.dense.weight, before["bert.encoder.layer.0.output.dense.weight"]
    assert bool((weight[was == 0] == 0).all())
    assert not torch.equal(weight, was)


@pytest.fixture
def trained(run, tmp_path):
    return run("text-classification", "lora", train={"output_dir": str(tmp_path / "trained"), "learning_rate": 0.02})


def test_a_pruned_run_with_recovery_in_rounds_under_its_original_is_a_run_like_any_other(trained, tmp_path) -> None:
    small = prune(trained, tmp_path / "small", feed_forward=0.4, rounds=2, recover=1, distill=True)

    recipe, network, _ = load_run(small)
    assert network.config.intermediate_size == 38  # of 64: 50 after the first round
    assert network.bert.encoder.layer[1].intermediate.dense.weight.shape == (38, 32)
    assert recipe.task.distill.teacher == str(trained)
    assert recipe.model.path.endswith("bert")
    assert json.loads((small / "reload.json").read_text())["same"]
    scores = json.loads((small / "scores.json").read_text())
    assert scores["baselines"]["original"]["accuracy_gap"]["low"] is not None
    assert evaluate(small)["test"]["accuracy"].value == pytest.approx(scores["test"]["accuracy"]["value"])
    AutoModelForSequenceClassification.from_pretrained(small)
    assert "prune of trained" in (small / "report.html").read_text()
    assert json.loads((small / "origin.json").read_text())["feed-forward units"] == "38 of 64 a layer"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_pruning_without_recovery_trains_nothing(trained, tmp_path, weights) -> None:
    small = prune(trained, tmp_path / "small", zeros=0.5, importance="magnitude")

    found = weights(small)
    inner = [each for name, each in found.items() if name.endswith("weight") and ".layer." in name and each.dim() == 2]
    inner.append(found["bert.pooler.dense.weight"])
    assert sum(int((each == 0).sum()) for each in inner) == round(0.5 * sum(each.numel() for each in inner))


def test_recovery_keeps_the_zeros(trained, tmp_path, weights) -> None:
    small = prune(trained, tmp_path / "small", zeros=0.5, recover=1)

    found = weights(small)["bert.encoder.layer.0.output.dense.weight"]
    assert 0.2 < float((found == 0).float().mean()) < 0.8


@pytest.mark.parametrize(
    ("overrides", "rate", "steps"), [({}, 0.001, -1), ({"train.learning_rate": 0.5, "train.max_steps": 7}, 0.5, 7)]
)
def test_recovery_trains_as_the_run_was_trained_at_a_rate_of_whole_models(trained, overrides, rate, steps) -> None:
    whole = open_whole(trained, trained.with_name("wanted"), overrides, "prune")
    recipe = Recovery(trained, 1.5, overrides)._recipe(whole.recipe, trained / "start", trained / "run")

    assert (recipe.train.learning_rate, recipe.train.max_steps) == (pytest.approx(rate), steps)
    assert recipe.train.num_train_epochs == 1.5
    assert recipe.train.per_device_train_batch_size == 16
    assert recipe.model.path == str(trained / "start")
    assert recipe.adapter is None


def test_what_cannot_be_pruned_is_refused_in_one_line_and_nothing_is_written(trained, tmp_path) -> None:
    wanted = tmp_path / "wanted"
    for options, words in (
        ({}, "nothing is to go"),
        ({"feed_forward": 1.0}, "--feed_forward is 1.0"),
        ({"feed_forward": 0.4, "zeros": 0.5}, "give one kind"),
        ({"heads": 0.5}, "--heads: BertForSequenceClassification ties the size of a head to the hidden size"),
        ({"feed_forward": 0.4, "importance": "tailor"}, "Did you mean taylor?"),
        ({"feed_forward": 0.4, "rounds": 2}, "need --recover"),
        ({"feed_forward": 0.4, "distill": True}, "need --recover"),
    ):
        with pytest.raises(UserError) as caught:
            prune(trained, wanted, **options)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if "wanted" in path.name] == []
