"""Scores are those of the rows: equal for every batch and both numbers of processes, and what ten lines compute."""

from __future__ import annotations

import json
import math

import launched_evaluation
import pytest
import tiny
import torch
import yaml
from test_two_processes import ROOT, launch

from finetune.cli import main
from finetune.preparation import prepare
from finetune.recipe import Recipe
from finetune.run import load_model

KINDS = tuple(tiny.TASKS)


@pytest.fixture(scope="module")
def found(home, tmp_path_factory) -> dict[str, dict]:
    """What one process and two have found, and the recipes by kind."""
    folder = tmp_path_factory.mktemp("cuts")
    paths = {}
    for kind in KINDS:
        made = tiny.sections(home, folder / "run", kind, "whole")
        made["train"]["use_cpu"] = True
        paths[kind] = folder / f"{kind}.yaml"
        paths[kind].write_text(yaml.safe_dump(made))
    names = [str(path) for path in paths.values()]
    launched_evaluation.main(str(folder / "one.json"), names)
    done = launch("cpu", str(ROOT / "tests" / "launched_evaluation.py"), str(folder / "two.json"), *names)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return {"paths": paths, **{name: json.loads((folder / f"{name}.json").read_text()) for name in ("one", "two")}}


def test_as_many_processes_come_up_as_were_asked_for(found, contract) -> None:
    assert [found[name]["world"] for name in ("one", "two")] == [1, 2]
    contract("R10", processes=2)


def test_a_command_that_finds_fewer_processes_than_were_asked_for_ends_with_2(
    sections, write_recipe, monkeypatch, capsys, contract
) -> None:
    monkeypatch.setattr(
        "finetune.training.world._parent_command", lambda: ["accelerate", "launch", "--num_processes", "2"]
    )

    assert main(["train", str(write_recipe(sections("text-classification")))]) == 2
    assert "2 processes were asked for and 1 came up" in capsys.readouterr().err
    contract("R10", refused=1)


@pytest.mark.parametrize("kind", KINDS)
def test_no_score_depends_on_batch_or_processes(found, contract, kind) -> None:
    cells = [(world, cut, scores) for world in ("one", "two")
             for cut, scores in found[world]["found"][str(found["paths"][kind])].items()]  # fmt: skip
    largest = 0.0
    for world, cut, scores in cells:
        count = cut.split("/")[0]
        expected = found["one"]["found"][str(found["paths"][kind])][f"{count}/1"]
        assert scores.keys() == expected.keys()
        for name, (value, n) in scores.items():
            assert n == expected[name][1], f"{world} {cut} {name}"
            both_missing = math.isnan(value) and math.isnan(expected[name][0])
            apart = 0.0 if both_missing else abs(value - expected[name][0]) / max(1, abs(expected[name][0]))
            assert apart <= 1e-5, f"{world} {cut} {name}"
            largest = max(largest, apart)
    contract("R9", cells=len(cells), largest_difference=largest)


@pytest.mark.parametrize("count", launched_evaluation.COUNTS)
def test_a_language_models_scores_are_those_of_ten_lines_that_weigh_tokens(found, count, contract) -> None:
    path = found["paths"]["causal-lm"]
    torch.manual_seed(3)
    prepared = prepare(Recipe.read(path))
    model, _ = load_model(prepared.recipe, prepared.processor)
    cost, tokens = 0.0, 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        for row in prepared.encoded["test"].inputs.select(range(count)):
            logits = model.eval()(torch.tensor([row["input_ids"]])).logits[0].double()
            losses = torch.nn.functional.cross_entropy(logits, torch.tensor(row["labels"]), reduction="none")
            cost, tokens = cost + float(losses.sum()), tokens + len(losses)

    for world in ("one", "two"):
        for size in launched_evaluation.BATCHES:
            scores = found[world]["found"][str(path)][f"{count}/{size}"]
            assert scores["nll"][0] == pytest.approx(cost / tokens, rel=1e-5)
            assert scores["perplexity"][0] == pytest.approx(math.exp(cost / tokens), rel=1e-4)
    contract("R9", references=1)


@pytest.mark.parametrize("count", launched_evaluation.COUNTS)
def test_a_classifiers_scores_are_those_of_ten_lines(found, count, contract) -> None:
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    path = found["paths"]["text-classification"]
    torch.manual_seed(3)
    prepared = prepare(Recipe.read(path))
    model, _ = load_model(prepared.recipe, prepared.processor)
    rows = prepared.encoded["test"].inputs.select(range(count))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        said = torch.cat([model.eval()(torch.tensor([row["input_ids"]])).logits for row in rows]).double()
    meant, chosen = list(rows["labels"]), said.argmax(dim=1).tolist()

    for world in ("one", "two"):
        for size in launched_evaluation.BATCHES:
            scores = found[world]["found"][str(path)][f"{count}/{size}"]
            assert scores["accuracy"][0] == pytest.approx(accuracy_score(meant, chosen), abs=1e-12)
            assert scores["macro_f1"][0] == pytest.approx(f1_score(meant, chosen, average="macro"), abs=1e-12)
            if "nll" in scores:
                assert scores["nll"][0] == pytest.approx(log_loss(meant, said.softmax(dim=1).numpy()), rel=1e-5)
    contract("R9", references=1)
