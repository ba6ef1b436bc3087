"""Models from scratch, GGUF files, adapters as a start, context lengths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.adapters import attach, load_adapter
from finetune.errors import UserError
from finetune.loading import ModelOptions, context_length, load_config, load_pretrained, load_tokenizer

SMALL: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 24,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24, "vocab_size": 60}


def test_a_model_from_scratch_is_new_as_a_whole_and_follows_the_seed():
    def built() -> torch.nn.Module:
        torch.manual_seed(3)
        options = ModelOptions(config=GPT2)
        model, new = load_pretrained(options, AutoModelForCausalLM, load_config(options))
        assert new == []
        return model

    for one, other in zip(built().parameters(), built().parameters(), strict=True):
        assert torch.equal(one, other)


def test_changes_overrule_the_recipes_configuration():
    config = load_config(ModelOptions(config=GPT2), vocab_size=99, pad_token_id=7)
    assert (config.vocab_size, config.pad_token_id, config.n_layer) == (99, 7, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_layers": 2}, "model.config.n_layers is not an option of gpt2. Did you mean n_layer?"),
        ({"n_layer": 2.5}, "n_layer"),
        ({"n_layer": "two"}, "n_layer"),
        ({"model_type": "gtp2"}, "Did you mean gpt2?"),
        ({"model_type": None}, "model.config.model_type is missing"),
        ({"activation_function": "gelo"}, "gelo"),
        ({"n_head": 3}, "model.config"),
    ],
)
def test_a_wrong_option_of_a_new_model_is_said_in_one_line(changes: dict[str, Any], said: str):
    options = ModelOptions(config={**GPT2, **changes})
    with pytest.raises(UserError) as error:
        load_pretrained(options, AutoModel, load_config(options))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_other_names_of_an_option_are_known():
    assert load_config(ModelOptions(config={"model_type": "gpt2", "num_hidden_layers": 3})).n_layer == 3


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "deberta-v2", "mpnet", "opt", "gpt2", "albert"])
def test_the_context_length_is_the_longest_input_that_the_model_takes(family: str):
    sizes = SMALL if family != "gpt2" else {**GPT2, "model_type": None}
    config = AutoConfig.for_model(family, **{name: value for name, value in sizes.items() if value is not None})
    model, limit = AutoModel.from_config(config).eval(), context_length(config)
    assert limit is not None
    assert torch.isfinite(model(input_ids=torch.full((1, limit), 5)).last_hidden_state).all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 5))


@pytest.mark.parametrize("family", ["t5", "bloom"])
def test_positions_without_end_have_no_context_length(family: str):
    assert context_length(AutoConfig.for_model(family)) is None


def test_an_adapter_is_merged_into_its_base_and_said(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    base, run = ModelOptions(path=str(home / "bert")), ModelOptions(path=str(tmp_path / "run"))
    ids = torch.randint(5, 20, (3, 7))

    def fresh(labels: int) -> tuple[Any, list[str]]:
        return load_pretrained(base, AutoModelForSequenceClassification, load_config(base, num_labels=labels))

    trained = attach(
        fresh(3)[0], LoraConfig(r=2, init_lora_weights=False), ["classifier.weight", "classifier.bias"]
    ).eval()
    trained.save_pretrained(tmp_path / "run")
    merged, new = load_pretrained(run, AutoModelForSequenceClassification, load_config(run, num_labels=3))
    assert new == []
    assert torch.allclose(merged(input_ids=ids).logits, trained(input_ids=ids).logits, atol=1e-5)
    assert "merged into its base" in capsys.readouterr().out
    assert len(load_tokenizer(run)) == len(load_tokenizer(base))

    other, new = load_pretrained(run, AutoModelForSequenceClassification, load_config(run, num_labels=5))
    assert new == ["classifier.bias", "classifier.weight"]
    hidden = [each.base_model(input_ids=ids).last_hidden_state for each in (other, merged)]
    assert torch.allclose(*hidden, atol=1e-6)


def test_an_adapter_on_an_adapter_finds_its_whole_base_again(home: Path, tmp_path: Path):
    first = ModelOptions(path=str(home / "gpt2"))
    ids = torch.randint(5, 200, (2, 6))
    for name in ("one", "two"):
        model, _ = load_pretrained(first, AutoModelForCausalLM, load_config(first))
        trained = attach(model, LoraConfig(r=2, init_lora_weights=False), []).eval()
        trained.save_pretrained(tmp_path / name)
        base, _ = load_pretrained(first, AutoModelForCausalLM, load_config(first))
        again = load_adapter(base, tmp_path / name)
        assert torch.equal(again(input_ids=ids).logits, trained(input_ids=ids).logits)
        first = replace(first, path=str(tmp_path / name))


def test_the_base_of_a_run_comes_from_its_recipe(home: Path, tmp_path: Path):
    base = ModelOptions(path=str(home / "gpt2"))
    model, _ = load_pretrained(base, AutoModelForCausalLM, load_config(base))
    model.name_or_path = "/a/folder/of/another/machine"
    attach(model, LoraConfig(r=2), []).save_pretrained(tmp_path / "run")
    run = ModelOptions(path=str(tmp_path / "run"))
    with pytest.raises(UserError, match="/a/folder/of/another/machine"):
        load_config(run)
    (tmp_path / "run" / "recipe.yaml").write_text(f"model:\n  path: {home / 'gpt2'}\n")
    assert load_pretrained(run, AutoModelForCausalLM, load_config(run))[1] == []


def test_a_method_that_cannot_be_merged_is_said_in_one_line(home: Path, tmp_path: Path):
    from peft import PromptTuningConfig

    base, run = ModelOptions(path=str(home / "gpt2")), ModelOptions(path=str(tmp_path / "run"))
    model, _ = load_pretrained(base, AutoModelForCausalLM, load_config(base))
    attach(model, PromptTuningConfig(num_virtual_tokens=2), []).save_pretrained(tmp_path / "run")
    with pytest.raises(UserError) as error:
        load_pretrained(run, AutoModelForCausalLM, load_config(run))
    assert str(run.path) in str(error.value)


def test_an_adapter_of_another_base_is_refused(home: Path, tmp_path: Path):
    base, run = ModelOptions(path=str(home / "llama")), ModelOptions(path=str(tmp_path / "run"))
    model, _ = load_pretrained(base, AutoModelForCausalLM, load_config(base))
    attach(model, LoraConfig(r=2), []).save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text(f"model: {{path: {tmp_path / 'wide'}}}\n")
    AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL)).save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match="adapter of another base"):
        load_pretrained(run, AutoModelForCausalLM, load_config(run))


@pytest.fixture
def llama_gguf(tmp_path: Path) -> tuple[Path, Any]:
    """A Llama of two layers in llama.cpp's own file format, written tensor by tensor."""
    gguf = pytest.importorskip("gguf")
    config = AutoConfig.for_model(
        "llama", vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=24, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    writer = gguf.GGUFWriter(str(tmp_path / "tiny.gguf"), "llama")
    writer.add_context_length(24)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(64)
    names = {"embed_tokens": "token_embd", "norm": "output_norm", "q_proj": "attn_q", "k_proj": "attn_k",
             "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up",
             "down_proj": "ffn_down", "input_layernorm": "attn_norm",
             "post_attention_layernorm": "ffn_norm"}  # fmt: skip
    for name, weight in model.named_parameters():
        parts = name.removeprefix("model.").split(".")
        kind = "output" if name == "lm_head.weight" else names[parts[-2]]
        block = f"blk.{parts[1]}." if parts[0] == "layers" else ""
        array = weight.detach()
        if kind in ("attn_q", "attn_k"):  # llama.cpp interleaves the two halves that rotary positions turn together
            array = array.reshape(2, 2, 8, 32).swapaxes(1, 2).reshape(32, 32)
        writer.add_tensor(f"{block}{kind}.weight", array.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "tiny.gguf", model


def test_a_gguf_file_gives_plain_weights(llama_gguf: tuple[Path, Any]):
    file, original = llama_gguf
    ids = torch.randint(0, 64, (2, 9))
    for options in (ModelOptions(path=str(file)), ModelOptions(path=str(file.parent), gguf_file=file.name)):
        model, new = load_pretrained(options, AutoModelForCausalLM, load_config(options))
        assert new == []
        assert model.dtype == torch.float32
        assert torch.allclose(model(input_ids=ids).logits, original(input_ids=ids).logits, atol=1e-5)


def test_a_missing_or_damaged_gguf_file_is_said_in_one_line(llama_gguf: tuple[Path, Any]):
    file, _ = llama_gguf
    with pytest.raises(UserError, match=r"Did you mean tiny\.gguf\?"):
        load_config(ModelOptions(path=str(file.parent), gguf_file="tini.gguf"))
    with pytest.raises(UserError, match="gguf_file"):
        load_pretrained(ModelOptions(path=str(file.parent)), AutoModelForCausalLM, AutoConfig.for_model("llama"))
    file.write_bytes(file.read_bytes()[:2000])
    options = ModelOptions(path=str(file))
    with pytest.raises(UserError) as error:
        load_pretrained(options, AutoModelForCausalLM, load_config(options))
    assert "\n" not in str(error.value)
