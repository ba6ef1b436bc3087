"""Several adapters of one base combined: what is added up, whose head it is, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from finetune import artefact
from finetune.adapters import Combination, attach, combine
from finetune.cli import main
from finetune.errors import UserError
from finetune.loading import ModelOptions, load_config, load_pretrained
from finetune.merging import merge
from finetune.reloading import load_run, load_runs, verify


def base(home: Path) -> Any:
    options = ModelOptions(path=str(home / "bert"))
    torch.manual_seed(0)
    return load_pretrained(options, AutoModelForSequenceClassification, load_config(options, num_labels=3))


@pytest.fixture
def saved(home: Path, tmp_path: Path) -> Any:
    """Return a function that saves an adapter with random weights and returns its folder."""

    def save(name: str, seed: int, **options: Any) -> Path:
        model, new = base(home)
        torch.manual_seed(seed)
        attached = attach(model, LoraConfig(**{"r": 3, "lora_alpha": 6, "init_lora_weights": False, **options}), new)
        for key, weight in attached.named_parameters():
            if "modules_to_save" in key:
                torch.nn.init.normal_(weight)
        attached.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def updates(model: Any, home: Path) -> dict[str, torch.Tensor]:
    before = dict(base(home)[0].named_parameters())
    return {name: (weight - before[name]).detach() for name, weight in model.named_parameters()}


def alone(home: Path, folder: Path) -> dict[str, torch.Tensor]:
    return updates(combine(base(home)[0], [folder], Combination((1.0,)))[0], home)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"r": 5, "target_modules": ["query"]}])
def test_cat_is_the_weighted_sum_of_the_updates_and_heads_are_averaged(saved: Any, home: Path, options: Any):
    folders = [saved("one", 1), saved("other", 2, **options)]
    model, brought, departure = combine(base(home)[0], folders, Combination((1.5, 0.5)))

    found, parts = updates(model, home), [alone(home, folder) for folder in folders]
    assert departure < 1e-5
    for name, update in found.items():
        if name not in brought:
            torch.testing.assert_close(update, 1.5 * parts[0][name] + 0.5 * parts[1][name], rtol=1e-4, atol=1e-6)
    heads = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    for name in brought:
        one, other = (head[f"base_model.model.{name}"] for head in heads)
        torch.testing.assert_close(model.get_parameter(name), 0.75 * one + 0.25 * other)


def test_svd_is_the_nearest_update_of_its_rank(saved: Any, home: Path):
    folders = [saved("one", 1), saved("other", 2)]
    exact = updates(combine(base(home)[0], folders, Combination((0.5, 0.5)))[0], home)
    model, brought, departure = combine(base(home)[0], folders, Combination((0.5, 0.5), "svd"))

    left, whole = 0.0, 0.0
    for name, update in updates(model, home).items():
        if update.ndim == 2 and name not in brought and update.any():
            values = torch.linalg.svdvals(exact[name])
            assert int(torch.linalg.matrix_rank(update, rtol=1e-4)) == 3
            torch.testing.assert_close((update - exact[name]).norm(), values[3:].norm(), rtol=1e-3, atol=1e-6)
            left, whole = left + float(values[3:].square().sum()), whole + float(values.square().sum())
    assert departure == pytest.approx((left / whole) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dare_ties"])
def test_methods_on_factors_say_how_far_they_are_off_the_sum(saved: Any, home: Path, method: str):
    folders = [saved("one", 1), saved("other", 2)]
    torch.manual_seed(0)
    departure = combine(base(home)[0], folders, Combination((0.5, 0.5), method))[2]
    assert 0.1 < departure < 20

    same = combine(base(home)[0], [folders[0]] * 2, Combination((0.5, 0.5), method, density=1.0))[2]
    # Two equal adapters: √½ A + √½ A, times the same of B, is twice the update; ties averages instead of adding.
    assert same == pytest.approx({"linear": 1.0, "dare_linear": 1.0}.get(method, 0.5), abs=1e-4)


def test_what_does_not_go_into_a_combination_is_named(saved: Any, home: Path):
    one = saved("one", 1)
    for folder, method, words in (
        (saved("dora", 2, use_dora=True), "cat", "use_dora True cannot be combined"),
        (saved("wide", 2, r=4), "linear", "same r value"),
    ):
        with pytest.raises(UserError, match=words):
            combine(base(home)[0], [one, folder], Combination((0.5, 0.5), method))
    with pytest.raises(UserError, match="sum to 0"):
        combine(base(home)[0], [one, one], Combination((1.0, -1.0)))


def test_two_runs_make_one_that_is_scored_beside_the_first(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    runs = [
        run("text-classification", "lora", train={"output_dir": str(tmp_path / name), "seed": seed})
        for name, seed in (("one", 1), ("other", 2))
    ]
    given = [str(each) for each in runs]
    assert main(["merge", *given, "--output", str(tmp_path / "both"), "--weights", "0.75,0.25", "--method", "svd"]) == 0

    both = tmp_path / "both"
    assert verify(both).same
    origin = json.loads((both / artefact.ORIGIN).read_text(encoding="utf-8"))
    assert [(each["run"], each["weight"]) for each in origin["of"]] == [("one", 0.75), ("other", 0.25)]
    assert (origin["method"], origin["head"]) == ("svd", "average")
    heads = [load_file(each / "adapter_model.safetensors")["base_model.model.classifier.weight"] for each in runs]
    torch.testing.assert_close(load_run(both)[1].classifier.weight.data, 0.75 * heads[0] + 0.25 * heads[1])
    assert "Beside" in capsys.readouterr().out

    for words, said in (
        (["--weights", "1"], "--weights has 1 numbers for 2 runs."),
        (["--weights", "a,b"], "--weights is a,b; give numbers"),
        (["--method", "tie"], "Did you mean ties?"),
        (["--density", "0.5"], "--density says nothing to cat"),
        (["--tolerance", "1"], "--tolerance is for one run"),
        (["--head", "elsewhere"], "--head is elsewhere; give one of the runs"),
    ):
        assert main(["merge", *given, "--output", str(tmp_path / "new"), *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["merge", given[0], "--output", str(tmp_path / "new"), "--method", "ties"]) == 2
    assert "--method is for several runs" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_other_labels_need_a_chosen_head_and_other_bases_are_refused(run: Any, home: Path, tmp_path: Path):
    rows = [{**row, "label": "glad" if row["label"] == "positive" else "sad"} for row in tiny.sentences(64, 1)]
    tiny.write_rows(tmp_path / "glad.jsonl", rows)
    files = {name: str(tmp_path / "glad.jsonl") for name in ("train", "validation", "test")}
    one = run("text-classification", "lora", train={"output_dir": str(tmp_path / "one")})
    glad = run("text-classification", "lora", train={"output_dir": str(tmp_path / "glad")}, data=files)

    with pytest.raises(UserError, match=r"different labels or tasks; say with --head RUN"):
        merge([one, glad], tmp_path / "both")
    both = merge([one, glad], tmp_path / "both", head=glad)
    assert load_run(both)[0].task.labels == ("glad", "sad")
    brought = load_file(glad / "adapter_model.safetensors")["base_model.model.classifier.weight"]
    assert torch.equal(load_run(both)[1].classifier.weight.data, brought)

    other = tiny.save_encoder(tmp_path / "roberta", "roberta")
    far = run("text-classification", "lora", train={"output_dir": str(tmp_path / "far")}, model={"path": str(other)})
    with pytest.raises(UserError, match="adapters of different bases do not add up"):
        merge([one, far], tmp_path / "none")


def test_adapters_over_one_base_are_switched_without_loading_again(run: Any, tmp_path: Path):
    runs = [
        run("text-classification", "lora", train={"output_dir": str(tmp_path / name), "seed": seed}, adapter=options)
        for name, seed, options in (("one", 1, {"r": 2}), ("other", 2, {"r": 4, "target_modules": ["value"]}))
    ]
    recipes, model, _ = load_runs(runs)
    batch, _ = next(artefact.reference_batches(runs[0]))
    for name, folder in (("one", runs[0]), ("other", runs[1]), ("one", runs[0])):
        model.set_adapter(name)
        recipe, alone_, _ = load_run(folder)
        assert torch.equal(recipes[name].task.logits(model, batch), recipe.task.logits(alone_, batch))

    whole = run("text-classification", train={"output_dir": str(tmp_path / "whole")})
    with pytest.raises(UserError, match="cannot share a base"):
        load_runs([runs[0], whole])
