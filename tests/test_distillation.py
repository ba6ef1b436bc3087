"""Learning from a teacher: the divergence, its share of the loss, and the teachers that are refused."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
import yaml
from scipy.special import expit, rel_entr, softmax

from finetune.errors import UserError
from finetune.objectives.distillation import Distillation, divergence
from finetune.objectives.teaching import Lesson
from finetune.tasks.text_classification import TextClassification


def logits(seed: int, *shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_is_scipys_times_the_squared_temperature(temperature) -> None:
    student, teacher = logits(1, 6, 5), logits(2, 6, 5)

    p, q = (softmax(each.numpy() / temperature, axis=1) for each in (teacher, student))
    expected = temperature**2 * rel_entr(p, q).sum(axis=1)
    np.testing.assert_allclose(divergence(student, teacher, temperature).numpy(), expected, rtol=1e-9)


def test_the_divergence_of_several_labels_is_the_mean_of_each_ones_own() -> None:
    student, teacher, temperature = logits(1, 6, 4), logits(2, 6, 4), 2.0

    p, q = (expit(each.numpy() / temperature) for each in (teacher, student))
    expected = temperature**2 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean(axis=1)
    np.testing.assert_allclose(divergence(student, teacher, temperature, "multi").numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("problem", ["single", "multi", "regression"])
def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn(problem) -> None:
    student = logits(1, 3, 4).requires_grad_()
    each = divergence(student, student.detach().clone(), 3.0, problem)
    each.sum().backward()

    torch.testing.assert_close(each, torch.zeros_like(each), rtol=0, atol=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


def test_at_a_high_temperature_the_gradient_is_that_of_matching_the_logits() -> None:
    """Hinton et al. 2015, equation 4: (z - v) / (N T²) for logits of mean zero, times the T² of the loss."""
    student, teacher = (each - each.mean(dim=1, keepdim=True) for each in (logits(1, 6, 5), logits(2, 6, 5)))
    student.requires_grad_()
    divergence(student, teacher, 1e4).sum().backward()

    torch.testing.assert_close(student.grad, (student - teacher).detach() / 5, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("weights", [None, {"a": 3.0, "b": 0.5}])
def test_the_loss_shares_itself_between_targets_and_teacher_whatever_a_row_weighs(weights) -> None:
    task = TextClassification(
        problem="single", labels=("a", "b"), class_weights=weights, distill=Distillation("anything", 2.0, 0.3)
    )
    student, teacher, labels = logits(1, 4, 2).float(), logits(2, 4, 2).float(), torch.tensor([0, 1, 1, 0])

    def model(**_):
        return SimpleNamespace(logits=student)

    total, _ = Lesson(task, SimpleNamespace(logits=teacher)).loss(model, {"labels": labels})
    each = torch.ones(4) if weights is None else torch.tensor([3.0, 0.5, 0.5, 3.0])
    hard = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    torch.testing.assert_close(total, (each * (0.7 * hard + 0.3 * divergence(student, teacher, 2.0))).sum())


def test_a_teacher_without_a_share_changes_no_bit(run, weights, home, tmp_path) -> None:
    options = {"model": {"path": str(home / "gpt2-dropout")}, "data": {"max_train_rows": 32}}
    teacher = tmp_path / "gpt2-teacher"
    run("text-classification", **options, train={"output_dir": str(teacher), "seed": 5})
    plain = run("text-classification", **options, train={"output_dir": str(tmp_path / "plain")})
    taught = run(
        "text-classification", **options, train={"output_dir": str(tmp_path / "taught")},
        task={"distill": {"teacher": str(teacher), "alpha": 0}},
    )  # fmt: skip

    expected = weights(plain)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(taught).items())


def test_a_student_comes_closer_to_its_teacher_and_the_teacher_does_not_move(run, weights, home, tmp_path) -> None:
    from finetune.reuse import predict

    before = weights(home / "teacher")
    far = run("text-classification", "distilled", train={"output_dir": str(tmp_path / "far"), "learning_rate": 0.0})
    near = run("text-classification", "distilled", task={"distill": {"teacher": str(home / "teacher"), "alpha": 1}},
               train={"output_dir": str(tmp_path / "near"), "num_train_epochs": 10})  # fmt: skip
    taught = run("text-classification", model={"path": str(home / "teacher")}, train={"learning_rate": 0.0})

    p, q, r = (np.asarray(predict(each, home / "test.jsonl")["p/positive"]) for each in (taught, far, near))
    assert np.abs(p - r).mean() < 0.5 * np.abs(p - q).mean()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(home / "teacher").items())


def test_a_finished_run_with_an_adapter_teaches_and_is_not_needed_afterwards(run, home, tmp_path) -> None:
    from finetune.reuse import evaluate

    teacher = run("text-classification", "lora", train={"output_dir": str(tmp_path / "teacher")})
    taught = run("text-classification", task={"distill": {"teacher": str(teacher)}})
    shutil.rmtree(teacher)

    assert evaluate(taught)["test"]["accuracy"].n == 22


def test_a_run_does_not_go_on_under_another_teacher(run, home, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    teacher = tmp_path / "teacher"
    shutil.copytree(home / "teacher", teacher)
    options = {"task": {"distill": {"teacher": str(teacher)}}, "train": {"save_strategy": "epoch"}}
    taught = run("text-classification", **options)
    assert json.loads((taught / "run.json").read_text())["status"] == "finished"
    (taught / "run.json").write_text(json.dumps({"format": 1, "status": "unfinished", "task": "text-classification"}))
    tensors = load_file(teacher / "model.safetensors")
    tensors["classifier.bias"] += 1
    save_file(tensors, teacher / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match=r"teacher\.weights"):
        run("text-classification", **options)


@pytest.fixture
def refused(sections, write_recipe):
    """Return a function that gives the line that a recipe with these options of distill is refused with."""
    from finetune.preparation import check
    from finetune.recipe import Recipe

    def line(distill: dict, **task) -> str:
        with pytest.raises(UserError) as caught:
            check(Recipe.read(write_recipe(sections("text-classification", task={"distill": distill, **task}))))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return line


@pytest.mark.parametrize(
    ("distill", "words"),
    [
        ({"alpha": 0.5}, "teacher"),
        ({"teacher": "x", "alpha": 1.5}, "task.distill.alpha is 1.5"),
        ({"teacher": "x", "temperature": 0}, "task.distill.temperature is 0"),
        ({"teacher": "x", "temprature": 2}, "temprature"),
        ({"teacher": "./nowhere"}, "task.distill.teacher: there is no folder ./nowhere"),
        ({"teacher": "{}/gpt2"}, "gpt2 has another tokenizer"),
        ({"teacher": "{}/bert"}, "label 0 is 'LABEL_0'"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_in_one_line(refused, home, distill, words) -> None:
    assert words in refused(
        {name: each.format(home) if isinstance(each, str) else each for name, each in distill.items()}
    )


def test_a_teacher_with_the_labels_in_another_order_is_refused(refused, home) -> None:
    line = refused({"teacher": str(home / "teacher")}, labels=["positive", "negative"])

    assert "label 0 is 'negative'" in line
    assert "set task.labels to its order" in line


def test_a_teacher_of_the_same_words_that_splits_otherwise_is_refused(refused, home, tmp_path) -> None:
    shutil.copytree(home / "teacher", tmp_path / "cased")
    file = tmp_path / "cased" / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalizer": None}))

    assert "split" in refused({"teacher": str(tmp_path / "cased")})


def test_a_teacher_of_another_problem_is_refused(refused, run, tmp_path) -> None:
    several = run("text-classification", task={"problem": "multi"}, train={"output_dir": str(tmp_path / "multi")})

    assert "task.problem" in refused({"teacher": str(several)})


def test_the_recipe_of_a_taught_run_names_its_teacher(run, home) -> None:
    taught = run("text-classification", "distilled")

    written = yaml.safe_load((taught / "recipe.yaml").read_text())["task"]["distill"]
    assert written == tiny.sections(home, taught, "text-classification", "distilled")["task"]["distill"]
