"""The mean of several whole runs: what it is, what of itself it is the mean of, and what has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from finetune import artefact
from finetune.cli import main
from finetune.errors import UserError
from finetune.merging import merge
from finetune.reloading import verify


def test_the_weights_are_the_mean_and_the_run_is_scored_beside_the_first(
    run: Any, weights: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    runs = [
        run("text-classification", train={"output_dir": str(tmp_path / name), "seed": seed})
        for seed, name in enumerate(("one", "two", "three"), 1)
    ]
    given = [str(each) for each in runs]
    assert main(["merge", *given, "--method", "soup", "--output", str(tmp_path / "soup")]) == 0

    made = tmp_path / "soup"
    each = [weights(folder) for folder in runs]
    for name, tensor in weights(made).items():
        mean = np.mean([other[name].double().numpy() for other in each], axis=0)
        np.testing.assert_allclose(tensor.numpy(), mean, rtol=1e-6, atol=1e-8)
    assert verify(made).same
    origin = json.loads((made / artefact.ORIGIN).read_text(encoding="utf-8"))
    assert [part["run"] for part in origin["of"]] == ["one", "two", "three"]
    assert (origin["method"], len(origin["gaps"])) == ("soup", 3)
    scores = json.loads((made / artefact.SCORES).read_text(encoding="utf-8"))
    first = json.loads((runs[0] / artefact.SCORES).read_text(encoding="utf-8"))
    assert scores["baselines"]["original"]["accuracy"] == first["test"]["accuracy"]
    capsys.readouterr()

    for words, said in (
        ([*given, "--method", "soup", "--weights", "1,1,1"], "--weights says nothing to soup"),
        (given, "--method soup takes the mean of several."),
        ([given[0], "--method", "soup"], "holds no adapter"),
    ):
        assert main(["merge", *words, "--output", str(tmp_path / "none")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["text-classification", "causal-lm", "image-classification"])
def test_a_run_with_itself_is_itself(run: Any, weights: Any, tmp_path: Path, kind: str):
    one = run(kind)
    made = merge([one, one], tmp_path / "soup", method="soup")

    before = weights(one)
    assert set(weights(made)) == set(before)
    for name, tensor in weights(made).items():
        assert torch.equal(tensor, before[name])


def test_runs_without_a_mean_are_refused_in_a_line(run: Any, home: Path, tmp_path: Path):
    def trained(name: str, adapter: str = "whole", kind: str = "text-classification", **changes: Any) -> Path:
        return run(kind, adapter, train={"output_dir": str(tmp_path / name)}, **changes)

    rows = [{**row, "label": "glad" if row["label"] == "positive" else "sad"} for row in tiny.sentences(32, 1)]
    file = str(tiny.write_rows(tmp_path / "glad.jsonl", rows))
    roberta = str(tiny.save_encoder(tmp_path / "roberta", "roberta"))
    one = trained("one")
    for other, said in (
        (trained("lora", "lora"), "--method soup is for whole models, and .*lora holds an adapter"),
        (trained("glad", data=dict.fromkeys(("train", "validation", "test"), file)), "different labels or tasks"),
        (trained("far", model={"path": roberta}), "far was trained from .*roberta, and .*one from .*bert"),
    ):
        with pytest.raises(UserError, match=said):
            merge([one, other], tmp_path / "soup", method="soup")
    images = [trained(name, kind="image-classification") for name in ("left", "right")]
    with pytest.raises(UserError, match="left was trained from scratch"):
        merge(images, tmp_path / "soup", method="soup")
    assert not (tmp_path / "soup").exists()
