"""`finetune export --to onnx`: graphs that answer as the run does, and a script that needs little to run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from test_adapters_families import SMALL
from tokenizers import Tokenizer

from finetune import artefact
from finetune.exporting import export
from finetune.exporting.onnx_running import Graph, LanguageModel
from finetune.exporting.original import Original
from finetune.reloading import load_merged
from finetune.reuse import predict

pytest.importorskip("onnxruntime")

LORA = {"peft_type": "LORA", "r": 4, "init_lora_weights": False}
ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
heavy = {"torch", "transformers", "finetune", "peft"} & {name.split(".")[0] for name in sys.modules}
assert not heavy, heavy
"""


def ran(folder: Path, *words: Any, place: Path | None = None) -> str:
    """Run run.py as it was written, in a process of its own, and return what it prints."""
    command = [sys.executable, "-c", ALONE, str(folder / "run.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=place)
    assert done.returncode == 0, done.stderr
    return done.stdout


def record(folder: Path) -> Any:
    return json.loads((folder / "export.json").read_text(encoding="utf-8"))


def test_a_classifier_answers_alike_in_fp32_and_in_int8_and_from_its_script(run: Any, tmp_path: Path):
    adapted = run("text-classification", "lora", adapter=LORA, train={"num_train_epochs": 3, "learning_rate": 0.5})
    folder = export(adapted, "onnx", tmp_path / "onnx", int8=True)

    found = record(folder)
    assert found["reference"]["onnx"]["relative"] < 1e-4
    assert found["test"]["onnx"]["relative"] < 1e-4
    assert found["test"]["onnx"]["same"] == 1.0
    scores = json.loads((folder / artefact.SCORES).read_text(encoding="utf-8"))
    assert scores["test"]["accuracy"] == scores["baselines"]["original"]["accuracy"]
    assert set(scores["baselines"]) == {"original", "int8"}
    assert found["bytes"]["model.int8.onnx"] < found["bytes"]["model.onnx"]
    for name in ("model.onnx", "model.int8.onnx"):  # where the code lies that was traced is nobody's business
        assert b".py" not in (folder / name).read_bytes()

    recipe, model, tokenizer = load_merged(adapted)
    graph = Graph(folder / "model.onnx")
    for texts in (["good"], ["the film was good", "dull", "a sour and bitter story of slow actors this evening"]):
        given = dict(tokenizer(texts, padding=True, return_tensors="pt"))
        with torch.no_grad():
            expected = recipe.task.logits(model, given).numpy()
        np.testing.assert_allclose(graph(**given)["logits"], expected, atol=1e-5)

    texts = [row["text"] for row in tiny.sentences(5, 9)] + ["word " * 60]  # the last is cut
    file = tiny.write_rows(tmp_path / "new.jsonl", [{"text": text} for text in texts])
    said = [json.loads(line) for line in ran(folder, *texts).splitlines()]
    assert [row["text"] for row in said] == texts
    assert [row["prediction"] for row in said] == predict(adapted, file)["prediction"]
    assert len((folder / "run.py").read_text().splitlines()) <= 30


def test_a_language_model_continues_greedily_as_generate_does(run: Any, tmp_path: Path):
    adapted = run("causal-lm", "lora", adapter=LORA, task={"pack": True})
    folder = export(adapted, "onnx", tmp_path / "onnx")

    assert record(folder)["reference"]["onnx"]["relative"] < 1e-4
    assert record(folder)["test"]["onnx"]["largest_nll"] < 1e-2
    original = Original.read(adapted)
    model, tokenizer = original.model, original.processor
    graphs = LanguageModel(original, {name: folder / f"{name}.onnx" for name in ("prefill", "decode")})
    for prompt in ("the film", "b", "my evening was"):
        ids = [tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]
        given = torch.tensor([ids])
        with torch.no_grad():
            expected = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False)
        assert graphs.greedy(ids, 12, tokenizer.eos_token_id) == expected[0].tolist()
    text = Tokenizer.from_file(str(folder / "tokenizer.json")).decode(expected[0].tolist())  # of the last prompt
    assert ran(folder, prompt, 12).rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize("kind", ["image-vae", "image-gan"])
def test_what_draws_draws_the_same_images(kind: str, run: Any, tmp_path: Path):
    folder = export(run(kind), "onnx", tmp_path / "onnx")

    assert record(folder)["reference"]["onnx"]["relative"] < 1e-4
    ran(folder, 7, 3, place=tmp_path)
    images = np.load(tmp_path / "images.npy")
    assert (images.shape, images.dtype) == ((7, 8, 8, 1), np.uint8)
    header, pixels = (tmp_path / "images.pgm").read_bytes().split(b"\n", 1)
    assert header == b"P5 24 24 255"
    assert np.array_equal(np.frombuffer(pixels, np.uint8).reshape(24, 24)[:8, 8:16], images[1, :, :, 0])
    original = Original.read(tmp_path / "run")
    latents = torch.from_numpy(np.random.default_rng(3).standard_normal((7, _latent(original))))
    with torch.no_grad():
        drawn = original.model(latents.float()) if kind == "image-gan" else original.model.decode(latents.float())
    expected = (drawn + 1) * 127.5 if kind == "image-gan" else drawn * 255
    assert abs(expected[:, 0].numpy() - images[..., 0]).max() <= 0.51


def _latent(original: Original) -> int:
    config: Any = original.model.config
    return int(config.latent_dim)


def test_images_are_classified_from_the_script_as_predict_does(run: Any, home: Path, tmp_path: Path):
    trained = run("image-classification", train={"learning_rate": 0.5})
    folder = export(trained, "onnx", tmp_path / "onnx")

    assert record(folder)["test"]["onnx"]["relative"] < 1e-4
    pixels = np.load(home / "test.npz")["image"][..., None]
    np.save(tmp_path / "images.npy", pixels)
    said = [json.loads(line)["prediction"] for line in ran(folder, tmp_path / "images.npy").splitlines()]
    assert said == predict(trained, home / "test.npz")["prediction"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "modernbert", "gpt2", "distilbert", "electra"])
def test_every_family_of_classifiers_exports_with_free_batch_and_length(family: str, run: Any, tmp_path: Path):
    base = tiny.save_encoder(tmp_path / family) if family == "bert" else _save_family(tmp_path / family, family)
    adapted = run("text-classification", "lora", adapter=LORA, model={"path": str(base)})
    folder = export(adapted, "onnx", tmp_path / "onnx", int8=True)

    found = record(folder)
    assert found["test"]["onnx"]["relative"] < 1e-4
    scores = json.loads((folder / artefact.SCORES).read_text(encoding="utf-8"))
    for name, score in scores["baselines"]["original"].items():
        assert scores["test"][name]["value"] == pytest.approx(score["value"], abs=1e-6), name
    assert found["test"]["int8"]["same"] >= 0.9


def _save_family(folder: Path, family: str) -> Path:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    tiny.save_encoder(folder)  # for its tokenizer, of fewer words than the families' 60
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if family in ("modernbert", "gpt2", "distilbert"):  # they know no types of tokens
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(family, **SMALL[family])).save_pretrained(folder)
    return folder
