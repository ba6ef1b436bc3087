"""Adapters of somebody who means harm, or of another base: one line, soon, and nothing of them runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign import base_of, edit, load, refused
from hub_server.store import Blob
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from finetune.adapters import attach, load_adapter
from finetune.adapters.attaching import without_noise

SLOW = r"(?:(\w)|(\w\w)|(\w\w\w)|\.|(\.\w))+\d\d"  # a pattern that tries a great many ways


# ---- S2: adapters

ADAPTERS = [
    ({"r": 50_000_000}, "at most 1024"),
    ({"r": "big"}, "at most 1024"),
    ({"rank_pattern": {"query": 10**8}}, "at most 1024"),
    ({"rank_pattern": {"(a+)+$": 2}}, "only plain names"),
    ({"alpha_pattern": {"(.*)*x": 2}}, "only plain names"),
    ({"target_modules": r"(.*)*(.*)*(.*)*[^.]!"}, "takes longer|no module"),
    ({"target_modules": SLOW}, "takes longer"),
    ({"target_modules": "("}, "regular expression"),
    ({"exclude_modules": SLOW}, "takes longer"),
    ({"modules_to_save": ["(a+)+$"]}, "no name of a module"),
    ({"layers_pattern": "(a+)+$", "layers_to_transform": [0]}, "no name of a module"),
    ({"layer_replication": [[0, 10**9]]}, "layer_replication"),
    ({"megatron_config": {}, "megatron_core": "os"}, "imports modules"),
    ({"auto_mapping": {"parent_library": "antigravity", "base_model_class": "X"}}, "imports modules"),
    ({"peft_type": "EVIL"}, "peft_type"),
    ({"peft_type": "XLORA", "hidden_size": 32, "adapters": {"0": "/other"}}, "other adapters"),
    ({"adapters": {"0": "/other"}}, "other adapters"),
    ({"peft_type": "POLY"}, "not read here"),
    ({"peft_type": "MULTITASK_PROMPT_TUNING", "prompt_tuning_init_state_dict_path": "/a.bin"}, "another file"),
    ({"prompt_tuning_init_state_dict_path": "/a.bin"}, "another file"),
    ({"arrow_config": {"top_k": 2}}, "other adapters"),
    ({"peft_type": "SHADOW", "shadow_model": "/other"}, "another model"),
    ({"rank_pattern": {"query": float("nan")}}, "at most 1024"),
    ({"r": 2.5}, "at most 1024"),
    ({"peft_type": "ADALORA", "rank_pattern": {"query.lora_E": [True] * 2000}}, "at most 1024"),
    ({"num_virtual_tokens": 1e12}, "num_virtual_tokens"),
    ({"num_virtual_tokens": [9]}, "num_virtual_tokens"),
    ({"init_lora_weights": "pissa_niter_1000000000"}, "init_lora_weights"),
    ({"loftq_config": {"loftq_bits": 4, "loftq_iter": 10**9}}, "loftq_iter"),
    ({"target_modules": "(?:a|b)" * 20_000}, "characters"),
    ({"target_modules": r"(?:(?:a{99}b){99}c){99}"}, "counts"),
    ({"target_modules": [f"m{n}" for n in range(20_000)]}, "target_modules"),
]


@pytest.mark.parametrize(("changes", "said"), ADAPTERS, ids=[str(n) for n in range(len(ADAPTERS))])
def test_an_adapter_that_asks_for_too_much_is_refused(bert, adapter, contract, changes, said):
    import re

    edit(adapter / "adapter_config.json", **changes)
    base = base_of(bert)

    assert re.search(said, refused(lambda: load_adapter(base, adapter)))
    edit(adapter / "adapter_config.json", base_model_name_or_path=str(bert))
    refused(lambda: load(adapter))
    contract("S2", refused=2)


def test_the_methods_that_are_read_are_those_that_a_recipe_can_train():
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    from finetune.adapters.methods import NEED_MORE
    from finetune.foreign.adapters import METHODS

    assert {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} - set(NEED_MORE) == METHODS


def test_the_ranks_that_adalora_ends_with_are_read(adapter):
    from finetune.foreign.adapters import check_adapter

    edit(adapter / "adapter_config.json", peft_type="ADALORA", rank_pattern={"a.query.lora_E": [True, False]})

    assert check_adapter(adapter, "here")["rank_pattern"] == {"a.query.lora_E": [True, False]}


def test_another_model_beside_the_base_is_refused_before_it_is_read(bert):
    from peft import ShadowConfig

    said = refused(lambda: attach(base_of(bert), ShadowConfig(shadow_model=str(bert / "other")), []))

    assert "adapter.shadow_model" in said


def test_a_pattern_of_a_recipe_has_its_time_and_is_saved_as_names(bert, tmp_path):
    from peft import LoraConfig

    slow = LoraConfig(r=2, target_modules=SLOW)
    assert "takes longer" in refused(lambda: attach(base_of(bert), slow, []))

    attached = attach(base_of(bert), LoraConfig(r=2, target_modules=r".*\.(query|value)"), [])
    attached.save_pretrained(tmp_path / "made")
    saved = json.loads((tmp_path / "made" / "adapter_config.json").read_text())

    assert sorted(saved["target_modules"]) == ["query", "value"]


def test_an_old_adapter_with_a_pattern_still_loads(bert, adapter):
    from peft import LoraConfig, get_peft_model

    with without_noise():
        plain = get_peft_model(base_of(bert), LoraConfig(r=2, target_modules=r".*\.(query|value)"))
    plain.save_pretrained(adapter)
    assert isinstance(json.loads((adapter / "adapter_config.json").read_text())["target_modules"], str)

    loaded = load_adapter(base_of(bert), adapter)

    assert sum("lora_A" in name for name, _ in loaded.named_parameters()) == 4


# ---- S3: an adapter and its base


def trained(bert: Path, folder: Path) -> Path:
    from peft import LoraConfig

    from finetune.foreign.adapters import bind

    attached = attach(base_of(bert), LoraConfig(r=2, target_modules="auto"), [])
    attached.save_pretrained(folder)
    bind(folder, attached.get_base_model())
    return folder


def other_weights(bert: Path) -> None:
    held = load_file(bert / "model.safetensors")
    held["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(held, bert / "model.safetensors", {"format": "pt"})


def another(bert: Path, **changes: Any) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(bert, **changes)
    AutoModel.from_config(config).save_pretrained(bert)


BASES: dict[str, Callable[[Path], None]] = {
    "same shapes": other_weights,
    "more layers": lambda bert: another(bert, num_hidden_layers=4),
    "fewer layers": lambda bert: another(bert, num_hidden_layers=1),
    "vocabulary": lambda bert: another(bert, vocab_size=99),
}


@pytest.mark.parametrize("change", BASES)
def test_an_adapter_loads_on_its_base_alone(bert, tmp_path, contract, change):
    folder = trained(bert, tmp_path / "made")
    load_adapter(base_of(bert), folder)
    edit(folder / "adapter_config.json", base_model_name_or_path=str(bert))
    load(folder)

    BASES[change](bert)

    assert "another base" in refused(lambda: load_adapter(base_of(bert), folder))
    assert "another base" in refused(lambda: load(folder))
    contract("S3", other_bases_refused=2)


def test_an_adapter_without_a_mark_loads_as_before(bert, adapter):
    other_weights(bert)

    assert load_adapter(base_of(bert), adapter) is not None


def test_a_base_of_another_revision_is_another_base(hub, home, tmp_path, contract):
    bert = Path(shutil.copytree(home / "bert", tmp_path / "bert"))
    other_weights(bert)
    repo = hub.upload("jane/bert", home / "bert")
    repo.tags["v1"] = repo.branches["main"]
    weights = Blob((bert / "model.safetensors").read_bytes(), True)
    repo.add("main", repo.commits[repo.branches["main"]].files | {"model.safetensors": weights}, "other weights")
    first, second = (load(Path("jane/bert"), revision=name)[0] for name in ("v1", None))
    folder = trained(home / "bert", tmp_path / "made")

    load_adapter(first, folder)
    assert "another revision" in refused(lambda: load_adapter(second, folder))
    contract("S3", other_bases_refused=1)


def test_a_run_of_an_adapter_carries_base_revision_and_digest(run, bert, monkeypatch):
    from safetensors import safe_open

    from finetune.cli import main
    from finetune.foreign.files import digest

    made = run("text-classification", "lora", model={"path": str(bert)})
    with safe_open(made / "adapter_model.safetensors", framework="pt") as opened:
        assert opened.metadata()["base_weights_sha256"] == digest([bert / "model.safetensors"])
    config = json.loads((made / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(bert)
    assert "revision" in config

    other_weights(bert)
    assert main(["evaluate", str(made)]) == 2


def test_the_same_adapter_is_the_same_file(bert, adapter):
    from finetune.foreign.adapters import bind, digest_of_base

    base, found = base_of(bert), set()
    before = {
        name: each.clone() for name, each in load_file(adapter / "adapter_model.safetensors").items()
    }  # not a map
    for _ in range(8):  # safetensors hashes the names of its metadata with other seeds each time
        bind(adapter, base)
        found.add((adapter / "adapter_model.safetensors").read_bytes())

    assert len(found) == 1
    after = load_file(adapter / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    assert digest_of_base(adapter) is not None
