"""Adapters family by family: targets, new modules, and what comes back from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from finetune.adapters import attach, load_adapter
from finetune.adapters.heads import new_modules, saved_names
from finetune.adapters.targets import block_linears, shortest_names
from finetune.errors import UserError
from finetune.loading import ModelOptions, load_config, load_pretrained

PLAIN: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "bert": PLAIN,
    "roberta": PLAIN,
    "electra": {**PLAIN, "embedding_size": 8},
    "albert": {**PLAIN, "embedding_size": 8},
    "deberta-v2": {**PLAIN, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
                   "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "modernbert": {**PLAIN, "cls_token_id": 1, "sep_token_id": 2},
    "distilbert": {"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "mpnet": PLAIN,
    "gpt2": {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "pad_token_id": 0,
             "bos_token_id": 1, "eos_token_id": 2},
    "llama": {**PLAIN, "num_key_value_heads": 1},
    "gpt_neox": PLAIN,
    "opt": {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32,
            "word_embed_proj_dim": 8, "pad_token_id": 0},
    "bloom": {"vocab_size": 60, "hidden_size": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0},
    "t5": {"vocab_size": 60, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
}  # fmt: skip

# family: (linear layers in its blocks, modules that its encoder's or decoder's weights do not bring).
# Read off the papers' block diagrams and the modelling files; kinds of layer, not how they are found.
TABLE: dict[str, tuple[set[str], list[str]]] = {
    "bert": ({"query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"}, ["classifier"]),
    "roberta": (
        {"query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"},
        ["classifier"],
    ),
    "electra": (
        {"query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"},
        ["classifier"],
    ),
    "albert": ({"query", "key", "value", "attention.dense", "ffn", "ffn_output"}, ["classifier"]),
    "deberta-v2": (
        {"query_proj", "key_proj", "value_proj", "attention.output.dense", "intermediate.dense", "output.dense"},
        ["classifier", "pooler"],
    ),
    "modernbert": ({"Wqkv", "attn.Wo", "Wi", "mlp.Wo"}, ["classifier", "head"]),
    "distilbert": ({"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"}, ["classifier", "pre_classifier"]),
    "mpnet": ({"q", "k", "v", "o", "intermediate.dense", "output.dense"}, ["classifier"]),
    "gpt2": ({"c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"}, ["score"]),
    "llama": ({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}, ["score"]),
    "gpt_neox": ({"query_key_value", "attention.dense", "dense_h_to_4h", "dense_4h_to_h"}, ["score"]),
    "opt": ({"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}, ["score"]),
    "bloom": ({"query_key_value", "self_attention.dense", "dense_h_to_4h", "dense_4h_to_h"}, ["score"]),
}
RELOADED = ("bert", "distilbert", "roberta", "deberta-v2", "electra", "modernbert", "gpt2", "llama", "albert", "opt")


def save_body(family: str, folder: Path) -> ModelOptions:
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(family, **SMALL[family])).save_pretrained(folder)
    return ModelOptions(path=str(folder))


def classifier(options: ModelOptions, seed: int) -> tuple[Any, list[str]]:
    torch.manual_seed(seed)  # of the head: a reload must not depend on it
    return load_pretrained(options, AutoModelForSequenceClassification, load_config(options, num_labels=3))


@pytest.mark.parametrize("family", sorted(TABLE))
def test_auto_takes_every_linear_layer_of_blocks_and_pooler_and_trains_the_new_head(family: str, tmp_path: Path):
    kinds, heads = TABLE[family]
    model, new = classifier(save_body(family, tmp_path), 0)
    assert sorted(new_modules(model, new)) == heads
    attached = attach(model, LoraConfig(r=2), new)
    adapted = [name for name, module in attached.named_modules() if hasattr(module, "lora_A")]
    blocks = 1 if family == "albert" else 2  # ALBERT's layers share one block
    inside = [name for name in adapted if "pooler" not in name]
    assert len(inside) == blocks * len(kinds)
    assert all(any(name.endswith(f".{kind}") for kind in kinds) for name in inside)
    pooler = {"bert": ["bert.pooler.dense"], "albert": ["albert.pooler"]}.get(family, [])  # new ones are heads
    assert [name.removeprefix("base_model.model.") for name in adapted if name not in inside] == pooler
    assert {name for name, each in attached.named_parameters() if each.requires_grad and "lora_" not in name} == {
        f"base_model.model.{_inside(name, heads)}" for name in new
    }


def _inside(name: str, heads: list[str]) -> str:
    head = next(each for each in heads if name.startswith(f"{each}."))
    return f"{head}.modules_to_save.default{name.removeprefix(head)}"


def test_both_halves_of_t5_are_adapted():
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("t5", **SMALL["t5"]))
    found = block_linears(model, ["classification_head"])
    assert len(found) == 2 * (4 + 2) + 2 * (4 + 4 + 2)
    assert set(shortest_names(model, list(found))) == {"q", "k", "v", "o", "wi", "wo"}


@pytest.mark.parametrize("family", sorted(SMALL))
def test_the_short_names_match_the_wanted_layers_and_no_other(family: str):
    from peft.tuners.tuners_utils import check_target_module_exists

    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **SMALL[family]))
    wanted = set(block_linears(model, []))
    config = LoraConfig(target_modules=shortest_names(model, sorted(wanted)))
    assert {name for name, _ in model.named_modules() if check_target_module_exists(config, name)} == wanted


@pytest.mark.parametrize("family", RELOADED)
def test_five_times_saved_and_loaded_a_classifier_answers_the_same(family: str, tmp_path: Path):
    options = save_body(family, tmp_path / "body")
    model, new = classifier(options, 0)
    attached = attach(model, LoraConfig(r=2, init_lora_weights=False), new)
    for name, weight in attached.named_parameters():  # a trained head, unlike any fresh one
        if weight.requires_grad and "lora_" not in name:
            torch.nn.init.normal_(weight)
    ids = torch.randint(3, 60, (4, 9), generator=torch.Generator().manual_seed(1))
    attached.eval()
    expected = attached(input_ids=ids).logits
    for cycle in range(5):
        attached.save_pretrained(tmp_path / f"{cycle}")
        attached = load_adapter(classifier(options, cycle + 1)[0], tmp_path / f"{cycle}")
        assert torch.equal(attached(input_ids=ids).logits, expected)


@pytest.mark.parametrize("family", RELOADED)
def test_every_new_parameter_and_no_other_weight_of_the_model_learns(family: str, tmp_path: Path):
    model, new = classifier(save_body(family, tmp_path), 0)
    attached = attach(model, LoraConfig(r=2, init_lora_weights=False), new)
    before = {name: weight.detach().clone() for name, weight in attached.named_parameters()}
    ids = torch.randint(3, 60, (4, 9))
    attached(input_ids=ids, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    torch.optim.SGD([each for each in attached.parameters() if each.requires_grad], lr=1.0).step()
    moved = {name for name, weight in attached.named_parameters() if not torch.equal(weight, before[name])}
    heads = {name for name in moved if "modules_to_save" in name}
    assert len(heads) == len(new)
    assert all("lora_" in name for name in moved - heads)
    assert moved - heads


def test_a_module_whose_name_ends_like_a_head_is_not_taken_for_it():
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(2, 2)
            self.lm_head = torch.nn.Linear(2, 2)
            self.inner = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 2)})

    assert saved_names(Model(), ["head"]) == ["model.head"]  # PEFT: base_model.model.head
    assert saved_names(Model(), ["lm_head", "inner.head"]) == ["lm_head", "inner.head"]


def test_a_new_weight_outside_all_modules_is_refused():
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temperature = torch.nn.Parameter(torch.ones(1))

    with pytest.raises(UserError, match="temperature"):
        new_modules(Model(), ["temperature"])


def test_a_module_that_is_new_in_part_is_saved_where_the_new_part_is():
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("roberta", **SMALL["roberta"]))
    assert new_modules(model, ["classifier.out_proj.weight", "classifier.out_proj.bias"]) == ["classifier.out_proj"]
    whole = [f"classifier.{name}" for name, _ in model.classifier.named_parameters()]
    assert new_modules(model, whole) == ["classifier"]


def test_a_tied_language_model_head_stays_tied_and_frozen(tmp_path: Path):
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **SMALL["gpt2"])).save_pretrained(tmp_path)
    options = ModelOptions(path=str(tmp_path))
    model, new = load_pretrained(options, AutoModelForCausalLM, load_config(options))
    attached = attach(model, LoraConfig(r=2), new)
    base = attached.get_base_model()
    assert base.lm_head.weight is base.transformer.wte.weight
    assert all("lora_" in name for name, weight in attached.named_parameters() if weight.requires_grad)
