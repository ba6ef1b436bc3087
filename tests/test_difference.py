"""`finetune diff`: what two runs changed in one base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from finetune.cli import main
from finetune.difference import diff
from finetune.errors import UserError


@pytest.fixture
def adapted(run: Any, tmp_path: Path) -> Path:
    options = {"r": 3, "lora_alpha": 6, "target_modules": ["query"], "init_lora_weights": False}
    return run("text-classification", "lora", train={"output_dir": str(tmp_path / "one")}, adapter=options)


def copied(folder: Path, name: str, **factors: float) -> Path:
    """Copy a run, with the weights whose name holds a key multiplied."""
    import shutil

    shutil.copytree(folder, folder.with_name(name))
    file = folder.with_name(name) / "adapter_model.safetensors"
    tensors = load_file(file)
    for key, factor in factors.items():
        tensors |= {each: factor * tensor for each, tensor in tensors.items() if key in each}
    save_file(tensors, file, metadata={"format": "pt"})
    return folder.with_name(name)


def test_an_update_of_the_other_sign_is_twice_as_far_and_has_cosine_minus_one(adapted: Path):
    found = diff([adapted, copied(adapted, "other", lora_B=-1.0, classifier=2.0)])

    tensors = load_file(adapted / "adapter_model.safetensors")
    assert [each.name for each in found.changes] == [
        f"bert.encoder.layer.{layer}.attention.self.query.weight" for layer in (0, 1)
    ]
    for each in found.changes:
        key = f"base_model.model.{each.name.removesuffix('weight')}"
        norm = float((2 * tensors[f"{key}lora_B.weight"] @ tensors[f"{key}lora_A.weight"]).norm())
        assert each.norms == pytest.approx((norm, norm), rel=1e-4)
        assert each.difference == pytest.approx(2 * norm, rel=1e-4)
        assert each.cosine == pytest.approx(-1.0, abs=1e-4)
        assert each.ranks == (3, 3)
    assert found.total.difference == pytest.approx(sum(each.difference**2 for each in found.changes) ** 0.5)
    heads = {each.name: each for each in found.heads}
    norm = float(tensors["base_model.model.classifier.weight"].norm())
    assert heads["classifier.weight"].norms == pytest.approx((norm, 2 * norm), rel=1e-5)
    assert heads["classifier.weight"].cosine == pytest.approx(1.0)


def test_equal_runs_answer_alike_and_the_table_says_so(adapted: Path, capsys: pytest.CaptureFixture[str]):
    other = copied(adapted, "other")
    assert main(["diff", str(adapted), str(other)]) == 0

    said = capsys.readouterr().out
    assert said.count("100.0% of the answers the same") == 2
    assert " 0  " in said.splitlines()[-4]  # the difference of all weights


def test_a_whole_fine_tuning_is_compared_with_an_adapter_and_other_bases_are_not(
    run: Any, adapted: Path, tmp_path: Path
):
    whole = run("text-classification", train={"output_dir": str(tmp_path / "whole")})
    found = diff([adapted, whole])
    assert len(found.changes) > 20
    assert {each.name for each in found.changes if each.norms[0]} == {
        f"bert.encoder.layer.{layer}.attention.self.query.weight" for layer in (0, 1)
    }

    base = tiny.save_encoder(tmp_path / "roberta", "roberta")
    other = run("text-classification", train={"output_dir": str(tmp_path / "far")}, model={"path": str(base)})
    with pytest.raises(UserError, match="nothing is shared"):
        diff([adapted, other])
    with pytest.raises(UserError, match="compares two runs, and was given 1"):
        diff([adapted])


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5])
def test_rank_counts_what_stands_out_of_rounding(scale: float):
    from finetune.difference import _rank, _rounding

    torch.manual_seed(0)
    weight = 0.05 * torch.randn(200, 300)
    low = scale * torch.randn(200, 3).double() @ torch.randn(3, 300).double()
    rounded = (weight + low).float().double() - weight.double()  # as fp32 holds the sum
    assert _rank(rounded, _rounding(weight.double())) == 3
    assert _rank(weight.float().double() - weight.double(), _rounding(weight.double())) == 0


def test_a_run_in_fewer_bits_is_neither_compared_nor_exported(adapted: Path, tmp_path: Path):
    from finetune.compressing.quantize import quantize
    from finetune.exporting import export

    small = quantize(adapted, tmp_path / "small", "int8-weight")
    with pytest.raises(UserError, match="in fewer bits, nothing compares"):
        diff([adapted, small])
    with pytest.raises(UserError, match="in fewer bits already; export the run that it came from"):
        export(small, "safetensors", tmp_path / "plain")
