"""What a distilled run says of its teacher and of the student alone, and the layers that a student starts from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from finetune.errors import UserError
from finetune.loading.layers import chosen_layers

REPORTED = {"baselines": True, "resamples": 100}


@pytest.mark.parametrize(
    ("kind", "score"), [("text-classification", "accuracy"), ("token-classification", "span_f1"), ("causal-lm", "nll")]
)
def test_a_distilled_run_stands_beside_its_teacher_and_the_same_student_alone(run, tmp_path, kind, score) -> None:
    """A gap is the difference of the two scores that stand there, of the same rows."""
    from finetune.reuse import evaluate

    trained = {"optim": "adamw_torch", "learning_rate": 3e-3, "num_train_epochs": 3}
    teacher = run(kind, train={"output_dir": str(tmp_path / "teacher"), **trained})
    alone = run(kind, train={"output_dir": str(tmp_path / "alone")})
    distill = {"teacher": str(teacher), "alone": str(alone)}
    found = run(kind, task={"distill": distill}, train={"output_dir": str(tmp_path / "taught")}, evaluate=REPORTED)

    told = json.loads((found / "scores.json").read_text())
    own = told["test"][score]["value"]
    for name, folder in (("teacher", teacher), ("alone", alone)):
        beside = told["baselines"][name]
        assert beside[score]["value"] == pytest.approx(evaluate(folder)["test"][score].value, rel=1e-5)
        assert beside[f"{score}_gap"]["value"] == pytest.approx(own - beside[score]["value"], abs=1e-6)
        assert beside[f"{score}_gap"]["low"] is not None
    page = (found / "report.html").read_text()
    assert "its teacher" in page
    assert "the same student alone" in page


def test_a_teacher_of_answers_is_scored_with_a_threshold_of_its_own(run, tmp_path, capsys) -> None:
    from finetune.reuse import evaluate

    teacher = run("question-answering", train={"output_dir": str(tmp_path / "teacher")})
    capsys.readouterr()
    found = run("question-answering", task={"distill": {"teacher": str(teacher)}}, evaluate=REPORTED)

    said = json.loads((found / "scores.json").read_text())["baselines"]["teacher"]["answer_f1"]["value"]
    assert said == pytest.approx(evaluate(teacher)["test"]["answer_f1"].value)
    assert capsys.readouterr().out.count("task.threshold:") == 1  # of the student alone


@pytest.mark.parametrize(
    ("alone", "data", "words"),
    [
        ("nowhere", {}, "task.distill.alone: nowhere does not exist"),
        ("{run}", {"test": None}, "name data.test"),
        ("{run}", {"test": "{home}/validation.jsonl", "validation": "{home}/test.jsonl"}, "validation.jsonl"),
        ("{other}", {}, "is a run of causal-lm, and this one of text-classification"),
    ],
)
def test_a_student_alone_that_cannot_be_held_against_is_refused_in_one_line(
    run, sections, write_recipe, home, tmp_path, alone, data, words
) -> None:
    from finetune.preparation import check
    from finetune.recipe import Recipe

    made = {"train": {"output_dir": str(tmp_path / "run")}}
    if "{run}" in alone:
        given = {"test": str(home / "test.jsonl"), "validation": None} if "validation" in data else {}
        run("text-classification", data=given, **made)
    if "{other}" in alone:
        run("causal-lm", train={"output_dir": str(tmp_path / "other")})
    told = {name: value and value.format(home=home) for name, value in data.items()}
    distill = {"teacher": str(home / "teacher"), "alone": alone.format(run=tmp_path / "run", other=tmp_path / "other")}
    train = {"output_dir": str(tmp_path / "taught")}
    with pytest.raises(UserError) as caught:
        check(
            Recipe.read(
                write_recipe(sections("text-classification", task={"distill": distill}, data=told, train=train))
            )
        )
    assert "\n" not in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({}, None),
        ({"train": {"seed": 5, "save_strategy": "epoch", "logging_steps": 3}, "evaluate": {"resamples": 0}}, None),
        ({"train": {"learning_rate": 0.5}}, "train.learning_rate is 0.5 there and 0.05 here"),
        ({"train": {"weight_decay": 0.1}}, "train.weight_decay is 0.1 there and not given here"),
        ({"model": {"path": "{home}/teacher"}}, "model.path is "),
        ({"model": {"layers": 1}}, "model.layers is 1 there and not given here"),
        ({"adapter": {"peft_type": "LORA", "r": 4}}, "adapter.peft_type is LORA there and not given here"),
        ({"data": {"max_train_rows": 8}}, "data.max_train_rows is 8 there and not given here"),
        ({"task": {"max_length": 16}}, "task.max_length is 16 there and 32 here"),
        ({"task": {"distill": {"teacher": "x"}}}, "was distilled itself"),
        ("teacher", "is the teacher"),
    ],
)
def test_only_the_same_student_is_the_student_alone(
    sections, write_recipe, home, tmp_path, monkeypatch, theirs, words
) -> None:
    """What a run's recipe says is held against this one's; weights are not needed for that."""
    from types import SimpleNamespace

    from finetune import artefact
    from finetune.recipe import Recipe
    from finetune.taught import check_alone

    alone = tmp_path / "alone"
    alone.mkdir()
    changes = {} if theirs == "teacher" else theirs
    changes = {
        name: {
            key: value.replace("{home}", str(home)) if isinstance(value, str) else value for key, value in each.items()
        }
        for name, each in changes.items()
    }
    Recipe.from_dict(sections("text-classification", **changes)).write(alone / artefact.RECIPE)
    artefact.write_status(alone, "finished", "text-classification")
    artefact.write_json(alone / artefact.DATA, {"fingerprints": {}})
    (alone / artefact.PREDICTIONS).touch()
    distill = {"teacher": str(alone if theirs == "teacher" else home / "teacher"), "alone": f"{tmp_path}/./alone"}
    made = sections("text-classification", task={"distill": distill}, train={"output_dir": str(tmp_path / "taught")})
    splits = SimpleNamespace(fingerprints={})
    if words is None:
        check_alone(Recipe.from_dict(made), splits)
        return
    with pytest.raises(UserError) as caught:
        check_alone(Recipe.from_dict(made), splits)
    assert str(caught.value).startswith("task.distill.alone: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_teacher_without_a_share_is_said_before_training(sections, write_recipe, home, capsys) -> None:
    from finetune.cli import main

    for more, said in (({"alpha": 0}, 1), ({"alpha": 0, "hidden": {"weight": 1.0}}, 0), ({"alpha": 0.1}, 0)):
        distill = {"teacher": str(home / "teacher"), **more}
        assert main(["check", str(write_recipe(sections("text-classification", task={"distill": distill})))]) == 0
        assert capsys.readouterr().out.count("Beware: task.distill.alpha is 0 and hidden is left out") == said


def test_layers_are_chosen_as_distilberts_were() -> None:
    assert chosen_layers(6, 12) == [0, 2, 4, 7, 9, 11]
    assert chosen_layers(2, 6) == [0, 5]
    assert chosen_layers(1, 6) == [0]
    assert chosen_layers(3, 3) == [0, 1, 2]


def test_a_student_starts_from_some_of_the_layers_and_comes_back_from_its_run(
    run, weights, home, tmp_path, capsys
) -> None:
    from safetensors.torch import load_file

    model = {"path": str(home / "gpt2-wide"), "layers": 2}
    still = {"output_dir": str(tmp_path / "still"), "learning_rate": 0.0}
    small, large = (
        weights(run("causal-lm", model=model, train=still)),
        load_file(home / "gpt2-wide" / "model.safetensors"),
    )

    assert "model.layers: 1, 4 of the 4 layers" in capsys.readouterr().out
    for name, tensor in small.items():
        there = name.replace("h.1.", "h.3.")
        assert torch.equal(tensor, large[there]), name
    assert json.loads((tmp_path / "still" / "config.json").read_text())["n_layer"] == 2
    again = run("causal-lm", model={"path": str(tmp_path / "still")}, train={"output_dir": str(tmp_path / "again")})
    assert json.loads((again / "reload.json").read_text())["same"]


@pytest.mark.parametrize(
    ("kind", "adapter", "model", "words"),
    [
        ("causal-lm", "whole", {"layers": 3}, "model.layers is 3"),
        ("causal-lm", "whole", {"layers": 0}, "model.layers is 0"),
        ("causal-lm", "lora", {"layers": 1}, "model.layers makes a model of its own, and adapter.peft_type LORA"),
        ("causal-lm", "whole", {"layers": 1, "path": None, "config": {"model_type": "gpt2"}}, "model.path is missing"),
        ("seq2seq", "whole", {"layers": 1}, "is not one stack of layers"),
    ],
)
def test_layers_that_cannot_be_chosen_are_refused_in_one_line(run, kind, adapter, model, words) -> None:
    with pytest.raises(UserError) as caught:
        run(kind, adapter, model=model)
    assert "\n" not in str(caught.value)
    assert words in str(caught.value)


def test_the_recipe_of_a_distillation_is_whole() -> None:
    from finetune.recipe import Recipe

    recipe = Recipe.read(Path(__file__).parents[1] / "recipes" / "distil.yaml")
    assert recipe.model.layers == 2
    assert recipe.task.distill.hidden is not None
