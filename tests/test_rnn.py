"""The recurrent language model: its state, its cache, documents side by side, and a run of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

import finetune.models  # noqa: F401  # registers the family
from finetune.models.rnn import RNNConfig, RNNForCausalLM
from finetune.tasks.causal_lm import CausalLM, packing_gap

SIZES = {"vocab_size": 50, "embedding_size": 12, "hidden_size": 16, "num_layers": 2}
MODEL = {"path": None, "config": {"model_type": "finetune-rnn-lm", "embedding_size": 8, "hidden_size": 12}}
both = pytest.mark.parametrize("cell", ["lstm", "gru"])


def network(cell: str = "lstm", **options: Any) -> RNNForCausalLM:
    torch.manual_seed(0)
    config = RNNConfig(cell=cell, bos_token_id=0, eos_token_id=0, pad_token_id=0, **{**SIZES, **options})
    return RNNForCausalLM(config).eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 50, (rows, length), generator=torch.Generator().manual_seed(seed))


@both
def test_logits_are_those_of_torchs_own_layer_step_by_step(cell) -> None:
    model, ids = network(cell), tokens(2, 5)

    with torch.no_grad():
        given = model(input_ids=ids).logits
        state, steps = None, []
        for place in range(5):
            hidden, state = model.rnn(model.embedding(ids[:, place : place + 1]), state)
            steps.append(F.linear(model.narrow(hidden), model.embedding.weight))

    torch.testing.assert_close(given, torch.cat(steps, dim=1))


@both
def test_packed_documents_are_read_as_separate_ones(cell) -> None:
    model = network(cell)
    lengths = [[4, 3, 5], [1, 11], [12], [2, 2, 2, 2, 2, 2]]
    ids = tokens(4, 12)
    positions = torch.stack([torch.cat([torch.arange(n) for n in each]) for each in lengths])

    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions).logits
        apart = [
            torch.cat([model(input_ids=part[None]).logits[0] for part in row.split(each)])
            for row, each in zip(ids, lengths, strict=True)
        ]
        leaking = model(input_ids=ids).logits

    torch.testing.assert_close(packed, torch.stack(apart), rtol=1e-5, atol=1e-6)
    assert (leaking - packed).abs().max() > 1e-3
    assert packing_gap(CausalLM(block_size=32), model) < 1e-6


@both
def test_a_document_goes_on_from_the_state_before_and_a_new_one_does_not(cell) -> None:
    model, ids = network(cell), tokens(2, 9)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 0, 1, 2, 0, 1]])

    with torch.no_grad():
        whole = model(input_ids=ids, position_ids=positions).logits
        first = model(input_ids=ids[:, :4], position_ids=positions[:, :4], use_cache=True)
        rest = model(input_ids=ids[:, 4:], position_ids=positions[:, 4:], past_key_values=first.past_key_values)

    torch.testing.assert_close(torch.cat((first.logits, rest.logits), dim=1), whole, rtol=1e-5, atol=1e-6)
    assert rest.past_key_values.get_seq_length() == 9


@both
@pytest.mark.parametrize(
    "how", [{"num_beams": 3}, {"do_sample": True}, {"num_beams": 2, "num_return_sequences": 2}, {}]
)
def test_with_and_without_its_cache_it_writes_the_same(cell, how) -> None:
    model, ids = network(cell), tokens(3, 6)
    ids[1, :4] = 0  # padding on the left
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    written = []
    for cached in (True, False):
        torch.manual_seed(3)
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=12,
            min_new_tokens=12,
            use_cache=cached,
            pad_token_id=0,
            **how,
        )
        written.append(out)

    assert torch.equal(*written)
    assert written[0].shape[1] == 18


def test_padding_on_the_left_does_not_change_what_is_written() -> None:
    model, ids = network(), tokens(1, 4)
    wide = F.pad(ids, (3, 0))
    mask = F.pad(torch.ones_like(ids), (3, 0))

    alone = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    padded = model.generate(input_ids=wide, attention_mask=mask, max_new_tokens=8, do_sample=False)

    assert torch.equal(padded[:, 3:], alone)


@both
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("hidden", [12, 16])
def test_it_is_saved_and_comes_back_with_its_weights_tied_or_not(tmp_path, cell, tied, hidden) -> None:
    config = AutoConfig.for_model("finetune-rnn-lm", cell=cell, tie_weights=tied, **{**SIZES, "hidden_size": hidden})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()

    ids = tokens(2, 7)
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, model(input_ids=ids).logits)
    assert (again.head.weight.data_ptr() == again.embedding.weight.data_ptr()) == tied


def test_its_own_loss_is_the_mean_of_the_next_tokens() -> None:
    model, ids = network(), tokens(2, 7)

    with torch.no_grad():
        out = model(input_ids=ids, labels=ids)

    chances = out.logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])
    torch.testing.assert_close(out.loss, -chances.mean())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"cell": "rnn"}, "known: lstm, gru"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"num_layers": 0}, "num_layers is 0"),
    ],
)
def test_what_it_cannot_be_is_said(options, line) -> None:
    with pytest.raises(ValueError, match=line):
        RNNConfig(**options)


def test_an_adapter_on_its_head_is_trained_and_comes_back_and_none_is_found_for_it(run, tmp_path) -> None:
    from finetune.errors import UserError

    base = run("causal-lm", model=MODEL, train={"output_dir": str(tmp_path / "base")})
    lora = {"peft_type": "LORA", "r": 2, "target_modules": ["narrow"]}
    source = {"path": str(base), "config": None}

    trained = run("causal-lm", model=source, adapter=lora)

    assert json.loads((trained / "reload.json").read_text())["same"]
    with pytest.raises(UserError, match="auto finds no layers in RNNForCausalLM"):
        run("causal-lm", model=source, adapter={"peft_type": "LORA"}, train={"output_dir": str(tmp_path / "auto")})


def test_its_token_vectors_are_rounded_and_nothing_else_is_found_to_round(run, tmp_path) -> None:
    from finetune.compressing.quantize import quantize
    from finetune.errors import UserError

    trained = run("causal-lm", model=MODEL)

    rounded = quantize(trained, tmp_path / "int8", "int8-weight", embeddings=True)

    assert json.loads((rounded / "reload.json").read_text())["same"]
    with pytest.raises(UserError, match="no linear layer that can be put into fewer bits"):
        quantize(trained, tmp_path / "none", "int8-weight")


@both
def test_packed_and_accumulated_steps_are_those_of_one_batch(run, weights, tmp_path, cell) -> None:
    model = {**MODEL, "config": {**MODEL["config"], "cell": cell}}
    task = {"block_size": 48, "pack": True, "vocab_size": 300}
    whole = run("causal-lm", task=task, model=model, train={"output_dir": str(tmp_path / "whole")})
    parts = run("causal-lm", task=task, model=model,
                train={"output_dir": str(tmp_path / "parts"), "per_device_train_batch_size": 4,
                       "gradient_accumulation_steps": 4})  # fmt: skip

    expected, given = weights(whole), weights(parts)
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_a_run_comes_back_in_a_fresh_process_with_dropout_and_is_evaluated_in_any_batch(run, cell) -> None:
    from finetune.reuse import evaluate, sample

    model = {**MODEL, "config": {**MODEL["config"], "cell": cell, "dropout": 0.2, "num_layers": 2}}
    trained = run("causal-lm", task={"block_size": 64, "vocab_size": 300}, model=model, evaluate={"reload": "fresh"})

    verdict = json.loads((trained / "reload.json").read_text())
    assert verdict["same"]
    found = [evaluate(trained, {"train.per_device_eval_batch_size": size})["test"]["nll"].value for size in (1, 16)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert len(sample(trained, count=3)) > 0
