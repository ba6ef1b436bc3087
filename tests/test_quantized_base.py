"""model.quantize: an adapter is trained on a base in 4 bits, comes back on it, and merges into the whole base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from finetune import artefact
from finetune.cli import main
from finetune.errors import CheckFailed
from finetune.loading import quantized
from finetune.merging import merge
from finetune.reloading import load_run, verify

pytest.importorskip("bitsandbytes")

NF4 = {"quantize": "nf4"}


@pytest.mark.parametrize(("kind", "base"), [("text-classification", "bert"), ("causal-lm", "gpt2")])
def test_an_adapter_on_a_base_in_four_bits_comes_back_on_it_and_merges_into_the_whole_one(
    kind: str, base: str, run: Any, home: Path, tmp_path: Path
):
    model = {"path": str(home / base), **NF4}
    folder = run(kind, "lora", model=model, adapter={"peft_type": "LORA", "r": 4, "init_lora_weights": False})

    assert verify(folder).same
    assert yaml.safe_load((folder / artefact.RECIPE).read_text(encoding="utf-8"))["model"] == model
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == model["path"]
    names = load_file(folder / "adapter_model.safetensors")
    assert all(each.dtype == torch.float32 for each in names.values())
    _, loaded, _ = load_run(folder)
    kinds = {
        weight.dtype
        for name, weight in loaded.named_parameters()
        if "base_layer.weight" in name and "pooler" not in name
    }
    assert kinds == {torch.uint8}

    with pytest.raises(CheckFailed, match=r"it would answer otherwise: .* --tolerance allows more"):
        merge(folder, tmp_path / "merged")
    merged = merge(folder, tmp_path / "merged", tolerance=10.0)
    recipe, whole, _ = load_run(merged)
    assert recipe.model.quantize is None
    assert all(weight.dtype == torch.float32 for weight in whole.parameters())
    original = load_file(home / base / "model.safetensors")
    same = [name for name, weight in whole.state_dict().items() if torch.equal(weight, original.get(name, weight[:0]))]
    assert any("embed" in name or "wte" in name for name in same) or kind == "text-classification"


@pytest.mark.parametrize(("form", "dtype"), [("fp4", torch.uint8), ("int8", torch.int8)])
def test_an_adapter_on_a_base_in_another_form_comes_back_on_it(form: str, dtype: Any, run: Any, home: Path):
    folder = run("text-classification", "lora", model={"path": str(home / "bert"), "quantize": form})

    assert verify(folder).same
    _, loaded, _ = load_run(folder)
    held = {each.dtype for name, each in loaded.named_parameters() if "query.base_layer.weight" in name}
    assert held == {dtype}


def test_answering_leaves_a_base_in_four_bits_as_it_was(run: Any, home: Path):
    folder = run("text-classification", "lora", model={"path": str(home / "bert"), **NF4})
    recipe, model, _ = load_run(folder)
    batch, _ = next(artefact.reference_batches(folder))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        first = recipe.task.logits(model, batch)
    model.train()
    recipe.task.logits(model, batch).sum().backward()
    model.eval()
    with torch.no_grad():
        assert torch.equal(recipe.task.logits(model, batch), first)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_what_cannot_be_quantised_is_one_line(
    sections: Any, write_recipe: Any, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole = write_recipe(sections("text-classification", model={"path": str(home / "bert"), **NF4}), "whole.yaml")
    assert main(["train", str(whole)]) == 2
    assert "model.quantize nf4 freezes the base, and adapter is missing" in capsys.readouterr().err

    adapted = write_recipe(sections("text-classification", "lora", model={"path": str(home / "bert"), **NF4}))
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    assert main(["train", str(adapted)]) == 2
    assert 'model.quantize needs bitsandbytes: pip install "finetune[qlora]"' in capsys.readouterr().err
