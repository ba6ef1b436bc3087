"""A text autoencoder of two pretrained halves: where its weights come from, LoRA on them, and that it comes back."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from torch.testing import assert_close

from finetune.errors import UserError

TASK = {"vocab_size": 300, "max_length": 64, "sample_tokens": 6, "free_bits": 1.0}


@pytest.fixture
def halves(home):
    return {
        "config": {
            "model_type": "finetune-text-vae",
            "preset": "pretrained",
            "latent_dim": 4,
            "encoder": str(home / "bert"),
            "decoder": str(home / "gpt2"),
        }
    }


@pytest.fixture
def trained(sections, write_recipe, halves):
    """Return a function that trains a tiny recipe of two halves, perhaps with an adapter; it returns the run."""
    from finetune.recipe import Recipe
    from finetune.run import train

    def go(adapter=None, task=TASK):
        made = sections("text-vae", model=halves, task=task, data={"on_long": "truncate"})
        return train(Recipe.read(write_recipe({**made, **({} if adapter is None else {"adapter": adapter})})))

    return go


def test_a_run_of_two_halves_comes_back_without_their_sources(trained, halves, tmp_path, home):
    from finetune.reloading import verify
    from finetune.reuse import load_run

    for half in ("encoder", "decoder"):
        halves["config"][half] = str(shutil.copytree(halves["config"][half], tmp_path / half))
    folder = trained()
    shutil.rmtree(tmp_path / "encoder")
    shutil.rmtree(tmp_path / "decoder")

    assert verify(folder).same
    _, model, processor = load_run(folder)
    assert json.loads((folder / "config.json").read_text())["encoder"]["model_type"] == "bert"
    assert model.decoder.network.lm_head.weight is model.decoder.network.transformer.wte.weight
    assert len(processor.encoder) != len(processor.decoder)


def test_weights_of_both_halves_are_those_of_their_sources(halves, home):
    from transformers import AutoModel, AutoModelForCausalLM

    from finetune.loading import ModelOptions
    from finetune.tasks.text_vae import TextVAETask

    task, options = TextVAETask(max_length=64), ModelOptions(**halves)
    model, new = task.load_model(options, task.load_processor(options, lambda: iter(())))

    decoder, encoder = AutoModelForCausalLM.from_pretrained(home / "gpt2"), AutoModel.from_pretrained(home / "bert")
    assert_close(dict(model.decoder.network.named_parameters()), dict(decoder.named_parameters()), rtol=0, atol=0)
    given = dict(encoder.named_parameters())
    assert all(torch.equal(weight, given[name]) for name, weight in model.encoder.network.named_parameters())
    assert {name.rsplit(".", 1)[0] for name in new} == {"posterior", "decoder.memory", "decoder.beside"}


@pytest.mark.parametrize(
    "adapter",
    [
        pytest.param({"peft_type": "LORA", "r": 4}, id="both", marks=pytest.mark.slow),
        pytest.param(
            {"peft_type": "LORA", "r": 4, "target_modules": r"decoder\..*\.(c_attn|c_proj|c_fc)"}, id="decoder"
        ),
    ],
)
def test_lora_beside_the_halves_is_saved_with_the_new_layers_and_comes_back(trained, adapter):
    from safetensors.torch import load_file

    from finetune.reloading import verify
    from finetune.reuse import evaluate

    folder = trained(adapter)
    saved = load_file(folder / "adapter_model.safetensors")
    scores = json.loads((folder / "scores.json").read_text())["test"]

    assert verify(folder).same
    assert evaluate(folder)["test"]["nelbo"].value == pytest.approx(scores["nelbo"]["value"], rel=1e-6)
    parts = {"posterior", "memory", "beside", "lora_A", "lora_B"}
    assert all(any(part in name for part in parts) for name in saved)
    assert all(any(part in name for name in saved) for part in parts)
    assert any("encoder.network" in name for name in saved) is (len(adapter) == 2)


def test_the_decoder_attends_to_its_memory_and_counts_positions_as_without_it(halves):
    from finetune.loading import ModelOptions
    from finetune.tasks.text_vae import TextVAETask

    task, options = TextVAETask(max_length=64), ModelOptions(**halves)
    model, _ = task.load_model(options, task.load_processor(options, lambda: iter(())))
    decoder = model.eval().decoder
    ids = torch.randint(1, 200, (3, 9), generator=torch.Generator().manual_seed(0))
    latent = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, _ = decoder(ids, latent)
        state, steps = None, []
        for place in range(9):
            logits, state = decoder(ids[:, place : place + 1], latent, None, state)
            steps.append(logits)
        assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-5)
        decoder.beside.weight.zero_()
        assert (decoder(ids, latent)[0] - decoder(ids, -latent)[0]).abs().max() > 1e-4
        for layer in (decoder.memory, decoder.beside):
            layer.weight.zero_()
            layer.bias.zero_()
        silent, plain = decoder(ids, latent)[0], decoder.network(input_ids=ids).logits
        # a memory of zeros still takes its share of every token's attention, and nothing else
        assert (silent - plain).abs().max() < (whole - plain).abs().max()


def test_a_text_longer_than_the_decoders_positions_is_refused(trained):
    with pytest.raises(UserError, match=r"task.max_length: 65 is more than the 64 positions"):
        trained(task={**TASK, "max_length": 65})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"preset": "pretrained", "encoder": None}, "preset pretrained needs an encoder and a decoder"),
        ({"preset": "gru"}, "encoder and decoder belong to preset: pretrained"),
        ({"preset": "lstm"}, "preset is 'lstm'; known: gru, pretrained"),
    ],
)
def test_a_preset_that_contradicts_its_halves_is_one_line(trained, halves, config, message):
    halves["config"] |= config

    with pytest.raises(UserError, match=message):
        trained()
