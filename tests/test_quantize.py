"""Runs in fewer bits: what is rounded, how exactly, and that it comes back."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as parquet
import pytest
import tiny
import torch

from finetune.compressing.quantize import METHODS, quantize
from finetune.errors import UserError
from finetune.evaluation.paired import agreement
from finetune.models.quantized import BITS, QuantizedEmbedding, QuantizedLinear, is_quantized, replace_modules
from finetune.reuse import evaluate, load_run


def layer(method: str, rows: int = 24, columns: int = 40) -> tuple[torch.nn.Linear, QuantizedLinear]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(columns, rows))
    exact = model[0]
    replace_modules(model, ["0"], method, filled=True)
    return exact, model[0]


@pytest.mark.parametrize(("method", "bits"), BITS.items())
def test_a_rounded_weight_is_off_by_half_a_step_at_most(method, bits) -> None:
    exact, rounded = layer(method)
    found = rounded.values(rounded.lines, rounded.weight_scale)

    if bits == 8:
        steps = exact.weight.abs().amax(dim=1, keepdim=True) / 127
        assert bool(((found - exact.weight).abs() <= steps / 2 * 1.001).all())
    else:  # Q4_0 has sixteen steps, and the end opposite to the largest value is one step short
        for start in range(0, 40, 32):
            group, given = exact.weight[:, start : start + 32], found[:, start : start + 32]
            steps = group.abs().amax(dim=1, keepdim=True) / 8
            assert bool(((given - group).abs() <= steps * 1.01).all())
    assert rounded.weight.numel() == {8: 24 * 40, 4: 24 * 64 // 2}[bits]


def test_four_bits_are_those_of_ggml() -> None:
    """gguf is ggml's own Python package: its Q4_0 of the same numbers gives the same values back."""
    gguf = pytest.importorskip("gguf")
    from gguf.quants import Q4_0

    _, rounded = layer("int4-weight", rows=6, columns=64)
    exact, _ = layer("int4-weight", rows=6, columns=64)
    expected = Q4_0.dequantize(Q4_0.quantize(exact.weight.detach().numpy()))

    found = rounded.values(rounded.lines, rounded.weight_scale).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert gguf.GGMLQuantizationType.Q4_0 == 2


def test_the_integer_product_is_the_product_of_the_rounded_matrices() -> None:
    _, rounded = layer("int8-dynamic")
    x = torch.randn(3, 5, 40)
    scale = x.abs().amax(dim=-1, keepdim=True) / 127
    given = (x / scale).round() * scale

    expected = torch.nn.functional.linear(given, rounded.values(rounded.lines, rounded.weight_scale), rounded.bias)
    torch.testing.assert_close(rounded(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_token_is_answered_does_not_depend_on_its_neighbours(method) -> None:
    _, rounded = layer(method)
    x = torch.randn(4, 40)
    loud = torch.cat([x[:2], 1000 * x[2:]])

    torch.testing.assert_close(rounded(loud)[:2], rounded(x)[:2], rtol=1e-6, atol=1e-6)


def test_gpt2s_transposed_layers_are_rounded_along_their_outputs() -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    exact = Conv1D(24, 40)
    model = torch.nn.Sequential(exact)
    replace_modules(model, ["0"], "int8-weight", filled=True)
    x = torch.randn(2, 40)

    assert (model[0].rows, model[0].columns) == (24, 40)
    torch.testing.assert_close(model[0](x), exact(x), rtol=0.02, atol=0.01)


SPLITS = (("train", 71), ("test", 72))
LEARN = {"optim": "adamw_torch", "learning_rate": 5e-3, "num_train_epochs": 6}


def test_a_rounded_run_comes_back_in_a_fresh_process_with_the_same_logits_and_scores(run, tmp_path) -> None:
    original = run("text-classification", train=LEARN)
    rounded = quantize(original, tmp_path / "rounded", embeddings=True, overrides={"evaluate.reload": "fresh"})

    verdict = json.loads((rounded / "reload.json").read_text())
    assert verdict == {"same": True, "max_difference": 0.0, "rows": 4, "process": "fresh"}
    again, written = evaluate(rounded)["test"], json.loads((rounded / "scores.json").read_text())
    assert {name: each.value for name, each in again.items()} == pytest.approx(
        {name: each["value"] for name, each in written["test"].items()}, rel=1e-6
    )
    assert written["baselines"]["original"]["accuracy_gap"]["low"] is not None
    assert json.loads((rounded / "origin.json").read_text())["of"][0]["run"] == original.name


@pytest.mark.parametrize(
    ("kind", "adapter", "model", "method"),
    [
        ("text-classification", "lora", "bert", "int4-weight"),
        ("text-classification", "lora", "gpt2", "int8-dynamic"),
        ("causal-lm", "whole", "gpt2", "int8-weight"),  # its head is tied to the token vectors
    ],
)
def test_every_layer_but_the_head_is_rounded_and_the_run_answers_as_before(
    run, home, tmp_path, kind, adapter, model, method
) -> None:
    original = run(kind, adapter, model={"path": str(home / model)}, train=LEARN)
    rounded = quantize(original, tmp_path / "rounded", method, embeddings=True)

    _, network, _ = load_run(rounded)
    kept = [name for name, each in network.named_modules() if isinstance(each, torch.nn.Linear)]
    assert kept in ([], ["classifier"], ["score"])
    assert not [each for each in network.modules() if type(each).__name__ == "Conv1D"]
    assert isinstance(network.get_input_embeddings(), QuantizedEmbedding)
    assert not list(rounded.glob("adapter*"))
    if kind == "causal-lm":
        assert network.get_output_embeddings().weight is network.get_input_embeddings().weight
        gap = json.loads((rounded / "scores.json").read_text())["baselines"]["original"]["nll_gap"]
        assert abs(gap["value"]) < 0.02
    else:
        p, q = (_answers(each) for each in (original, rounded))
        assert np.abs(p - q).max() < (0.02 if "8" in method else 0.25)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_in_8_bits_99_of_100_answers_are_the_same_and_accuracy_moves_by_a_point_at_most(
    run, home, tmp_path, family
) -> None:
    rows = {name: tiny.write_rows(tmp_path / f"{name}.jsonl", tiny.sentences(400, seed)) for name, seed in SPLITS}
    data = {name: str(path) for name, path in rows.items()}
    made = run("text-classification", model={"path": str(home / family)}, train=LEARN, data=data)

    rounded = quantize(made, tmp_path / "rounded", "int8-dynamic", embeddings=True)

    before, after = (json.loads((each / "scores.json").read_text())["test"]["accuracy"] for each in (made, rounded))
    assert before["value"] > 0.8  # it has learned something that rounding could lose
    assert agreement(made, rounded) >= 0.99
    assert abs(before["value"] - after["value"]) <= 0.01


def _answers(folder) -> np.ndarray:
    table = parquet.read_table(folder / "predictions.parquet")
    return table["p/positive"].to_numpy()


@pytest.fixture
def trained(run):
    return run("text-classification")


def test_without_asking_the_token_vectors_and_the_head_stay_as_they_are(trained, tmp_path, weights) -> None:
    rounded = quantize(trained, tmp_path / "rounded", "int8-weight")

    before, after = weights(trained), weights(rounded)
    for name in ("bert.embeddings.word_embeddings.weight", "classifier.weight", "classifier.bias"):
        assert torch.equal(before[name], after[name])
    assert sum(map(is_quantized, load_run(rounded)[1].modules())) == 13  # six a layer, and the pooler


@pytest.mark.slow  # two processes of 5 to 10 s
def test_transformers_alone_refuses_a_rounded_model_and_the_cards_code_reads_it(trained, tmp_path) -> None:
    from finetune.publishing.snippets import snippet
    from finetune.recipe import Recipe

    rounded = quantize(trained, tmp_path / "rounded")
    config = json.loads((rounded / "config.json").read_text())
    card = snippet(Recipe.read(rounded / "recipe.yaml"), str(rounded), None, None, config)
    assert "import finetune.models" in card
    alone = f"import transformers as t; t.AutoModelForSequenceClassification.from_pretrained({str(rounded)!r})"

    refused, read = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        for code in (alone, card)
    )
    assert refused.returncode != 0
    assert "mismatch" in refused.stderr
    assert read.returncode == 0, read.stderr


def test_a_rounded_run_that_lost_a_tensor_is_refused(trained, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    rounded = quantize(trained, tmp_path / "rounded")
    tensors = load_file(rounded / "model.safetensors")
    tensors.pop("bert.encoder.layer.0.output.dense.weight_scale")
    save_file(tensors, rounded / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match=r"fewer bits, and .*weight_scale is missing"):
        load_run(rounded)


def test_a_rounded_run_teaches_and_cannot_be_trained(trained, run, tmp_path) -> None:
    rounded = quantize(trained, tmp_path / "rounded")
    with pytest.raises(UserError, match="fewer bits, which take no gradient"):
        run("text-classification", model={"path": str(rounded)}, train={"output_dir": str(tmp_path / "again")})

    taught = run("text-classification", task={"distill": {"teacher": str(rounded)}},
                 train={"output_dir": str(tmp_path / "taught")})  # fmt: skip
    assert (taught / "model.safetensors").exists()


def test_what_cannot_be_rounded_is_refused_in_one_line_and_nothing_is_written(trained, run, tmp_path) -> None:
    rounded = quantize(trained, tmp_path / "rounded")
    images = run("image-classification", train={"output_dir": str(tmp_path / "images")})
    wanted = tmp_path / "wanted"
    for arguments, words in {
        (trained, wanted, "int8-dynamc"): "Did you mean int8-dynamic?",
        (trained, None): "--output is missing",
        (trained, trained): "is there already",
        (trained, rounded): "is there already",
        (rounded, wanted): "is in fewer bits already",
        (images, wanted): "is of image-classification",
        (tmp_path / "roundd", wanted): "Did you mean rounded?",
    }.items():
        with pytest.raises(UserError) as caught:
            quantize(*arguments)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not wanted.exists()
