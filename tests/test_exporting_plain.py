"""`finetune export` into plain formats: other programs read them without this package."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune import artefact
from finetune.adapters.serving import least_rank, vllm_refusals
from finetune.cli import main
from finetune.errors import CheckFailed, UserError
from finetune.exporting import export
from finetune.exporting.torch_format import FILE, refuse_pickles

LORA = {"peft_type": "LORA", "r": 4, "init_lora_weights": False}


def fresh(code: str, *words: Any) -> str:
    """Run code in a process of its own that never imports this package, and return what it prints."""
    code += "\nimport sys; assert not any(name.split('.')[0] == 'finetune' for name in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, words)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = """
import sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, reference = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
kept = load_file(reference)
batch = {name[2:]: each for name, each in kept.items() if name.startswith("0.")}
expected = batch.pop("logits")
batch.pop("labels", None)
with torch.no_grad():
    print(float((model(**batch).logits - expected).abs().max()), model.config.id2label[0], tokenizer.pad_token)
"""


def test_plain_transformers_loads_a_merged_classifier_with_its_labels(run: Any, tmp_path: Path):
    adapted = run("text-classification", "lora", adapter=LORA)
    folder = export(adapted, "safetensors", tmp_path / "plain")

    gap, label, pad = fresh(LOADED, folder, adapted / artefact.REFERENCE).split()
    assert float(gap) < 1e-5
    assert (label, pad) == ("negative", "[PAD]")
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert record["reference"]["safetensors"]["relative"] < 1e-5
    assert record["test"]["safetensors"]["same"] == 1.0
    found = json.loads((folder / artefact.SCORES).read_text(encoding="utf-8"))
    assert found["test"] == found["baselines"]["original"]


def test_a_folder_for_llama_cpp_holds_what_its_converter_reads(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapted = run("causal-lm", "lora", adapter=LORA)
    folder = export(adapted, "gguf-ready", tmp_path / "gguf")

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert all(config[name] for name in ("n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon"))
    weights = load_file(folder / "model.safetensors")
    assert "transformer.h.1.attn.c_attn.weight" in weights
    assert not any("lora" in name for name in weights)
    assert {each.dtype for each in weights.values()} == {torch.float32}
    assert json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["type"] == "BPE"
    assert "not GPT-2's own vocabulary" in capsys.readouterr().out


def test_a_torch_program_answers_at_other_sizes_and_holds_no_pickle(run: Any, tmp_path: Path):
    adapted = run("text-classification", "lora", adapter=LORA)
    folder = export(adapted, "torch", tmp_path / "program")

    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert record["reference"]["torch"]["relative"] < 1e-5
    program = torch.export.load(folder / FILE).module()
    for rows, length in ((1, 3), (5, 20)):
        ids = torch.randint(5, 20, (rows, length))
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        assert program(**given).shape == (rows, 2)
    with zipfile.ZipFile(folder / FILE) as archive:
        content = [archive.read(name) for name in archive.namelist()]
    assert not any(each[:2] in (b"\x80\x02", b"\x80\x04", b"PK") for each in content)


def test_a_torch_program_with_a_pickle_is_not_loaded(tmp_path: Path):
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "inputs.pt2")  # its example inputs are one
    with pytest.raises(CheckFailed, match=r"sample_inputs.* is a pickle"):
        refuse_pickles(tmp_path / "inputs.pt2")
    with zipfile.ZipFile(tmp_path / "weights.pt2", "w") as archive:
        archive.writestr("m/data/weights/model_weights_config.json", '{"config": {"w": {"use_pickle": true}}}')
    with pytest.raises(CheckFailed, match="names pickles"):
        refuse_pickles(tmp_path / "weights.pt2")


PEFT = """
import sys, torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
folder, reference = sys.argv[1:]
model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
kept = load_file(reference)
batch = {name[2:]: each for name, each in kept.items() if name.startswith("0.")}
expected = batch.pop("logits")
batch.pop("labels", None)
with torch.no_grad():
    print(float((model(**batch).logits - expected).abs().max()))
"""


def test_plain_peft_loads_a_runs_adapter_with_its_head(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapted = run("text-classification", "lora", adapter=LORA)
    assert main(["export", str(adapted), "--to", "adapter", "--output", str(tmp_path / "adapter")]) == 0

    assert "vLLM would refuse it: modules_to_save is ['classifier'" in capsys.readouterr().out
    assert float(fresh(PEFT, tmp_path / "adapter", adapted / artefact.REFERENCE)) == 0.0


def test_a_language_models_adapter_is_one_that_vllm_serves(run: Any, tmp_path: Path):
    adapted = run("causal-lm", "lora")
    folder = export(adapted, "adapter", tmp_path / "adapter")
    assert vllm_refusals(folder) == []

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    for changes, word in (
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias is all"),
        ({"r": 1024}, "rank 1024 is above 512"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "only LORA"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
        (said,) = vllm_refusals(folder)
        assert word in said
    assert [least_rank(r) for r in (4, 16, 24, 512, 513)] == [8, 16, 32, 512, None]


def test_what_cannot_be_exported_is_one_line(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = run("image-vae")
    for words, said in (
        ([], "--to is missing; known: onnx, torch"),
        (["--to", "onxn"], "Did you mean onnx?"),
        (["--to", "torch", "--int8"], "--int8 is for --to onnx."),
        (["--to", "torch"], "--to torch: image-vae has no such export"),
        (["--to", "safetensors"], "no other program reads a finetune-vae"),
        (["--to", "gguf-ready"], "llama.cpp continues texts"),
        (["--to", "adapter"], "holds no adapter"),
    ):
        assert main(["export", str(folder), *words]) == 2
        assert said in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["run"] or not list(tmp_path.glob("run-*"))
    with pytest.raises(UserError, match="there already"):
        export(folder, "onnx", folder)
