"""Distillation for every task that a teacher makes sense for: sums, layers, what is left behind, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch

from finetune.objectives.distillation import Distillation, Hidden
from finetune.objectives.hidden_states import distance, layer_map
from finetune.objectives.teaching import BRIDGE, Lesson, showing
from finetune.tasks import TASKS, task_class
from finetune.tasks.teachers import Taught

KINDS = [kind for kind in TASKS if issubclass(task_class(kind), Taught)]
WIDE = {"hidden": {"weight": 0.5}, "alpha": 0.5}


def test_every_task_with_answers_to_learn_from_can_be_taught() -> None:
    assert set(TASKS) - set(KINDS) == {"image-gan", "image-vae", "text-vae"}  # generators of their own losses


@pytest.fixture
def taught(sections, write_recipe):
    """Return a function that gives (task, student, its double with other weights, a function from rows to a batch)."""
    from finetune.preparation import prepare
    from finetune.recipe import Recipe
    from finetune.training.batching import CARRIED, drawn

    def make(kind: str) -> tuple[Any, Any, Any, Any]:
        prepared = prepare(Recipe.read(write_recipe(sections(kind))))
        task, processor = prepared.recipe.task, prepared.processor
        torch.manual_seed(0)
        student, teacher = (task.load_model(prepared.recipe.model, processor)[0].eval() for _ in range(2))
        with torch.no_grad():
            for weight in teacher.parameters():
                weight += 0.1 * torch.randn_like(weight)
        hidden = None if kind == "image-classification" else Hidden(0.5)
        task = replace(task, distill=Distillation("anything", 2.0, 0.6, hidden=hidden))
        inputs, collate = prepared.encoded["train"].inputs, task.collator(processor)

        def batch(first: int, last: int) -> dict[str, Any]:
            made = collate([inputs[number] for number in range(first, last)])
            keys = drawn(1, 2, made["row"], progress=0.5) if task.draws else {}
            return {name: each for name, each in (made | keys).items() if name not in CARRIED}

        return task, student, teacher, batch

    return make


def told(task: Any, teacher: Any, batch: dict[str, Any]) -> Any:
    with torch.no_grad(), showing(teacher, task.distill.hidden is not None):
        return task.loss(teacher, batch)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learned_from_a_teacher_is_a_sum_over_rows_however_they_are_cut(taught, kind) -> None:
    task, student, teacher, batch = taught(kind)

    def learned(first: int, last: int) -> torch.Tensor:
        given = batch(first, last)
        return Lesson(task, told(task, teacher, given)).loss(student, given)[0].detach()

    whole = learned(0, 7)
    torch.testing.assert_close(learned(0, 2) + learned(2, 7), whole, rtol=1e-4, atol=1e-5)
    assert float(whole) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_is_its_own_teacher_has_nothing_to_learn_from_it(taught, kind) -> None:
    task, student, other, batch = taught(kind)
    task, given = replace(task, distill=replace(task.distill, alpha=1.0)), batch(0, 5)

    own, far = (
        float(Lesson(task, told(task, each, given)).loss(student, given)[0].detach()) for each in (student, other)
    )
    assert own == pytest.approx(0.0, abs=1e-4)
    assert far > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_row_weighs_adds_up_to_the_weight_of_its_batch(taught, kind) -> None:
    task, _, _, batch = taught(kind)
    given = batch(0, 5)

    assert float(task.row_weights(given).sum()) == float(task.weight(given))


def test_layers_are_held_against_those_as_far_up() -> None:
    assert layer_map(3, 7) == [0, 3, 6]  # two layers against six: TinyBERT's m x N / M
    assert layer_map(5, 5) == [0, 1, 2, 3, 4]
    assert layer_map(4, 3) == [0, 1, 1, 2]


def test_the_distance_of_hidden_states_is_a_mean_over_real_places_and_layers() -> None:
    states = [torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(each)) for each in range(8)]
    student, teacher = states[:3], states[3:8]
    places = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()

    expected = [
        sum(
            ((student[own][row, :count] - teacher[theirs][row, :count]) ** 2).mean()
            for own, theirs in ((0, 0), (1, 2), (2, 4))
        )
        / 3
        for row, count in ((0, 2), (1, 4))
    ]
    torch.testing.assert_close(distance(student, teacher, places), torch.stack(expected))


def test_matching_hidden_states_brings_them_to_the_teachers(run, home, tmp_path) -> None:
    from transformers import AutoModel

    def far(folder: Any) -> float:
        ids = torch.arange(2, 30).view(4, 7)
        student, teacher = (AutoModel.from_pretrained(each).eval() for each in (folder, home / "teacher-far"))
        with torch.no_grad():
            states = [each(input_ids=ids, output_hidden_states=True).hidden_states for each in (student, teacher)]
        return float(distance(*states, torch.ones_like(ids).bool()).mean())

    tiny.save_encoder(home / "bert-far", seed=5)
    tiny.save_teacher(home / "teacher-far", home / "bert-far", "TokenClassification", tiny.TAGS)
    found = {}
    for name, hidden in (("answers", None), ("layers", {"weight": 5.0})):
        distill = {"teacher": str(home / "teacher-far"), "hidden": hidden}
        trained = {
            "output_dir": str(tmp_path / name),
            "num_train_epochs": 6,
            "optim": "adamw_torch",
            "learning_rate": 3e-3,
        }
        found[name] = far(run("token-classification", task={"distill": distill}, train=trained))

    assert found["layers"] < 0.5 * found["answers"]


@pytest.mark.parametrize("adapter", ["whole", "lora"])
def test_what_leads_to_a_wider_teacher_is_trained_and_kept_in_checkpoints_and_not_in_the_run(
    run, weights, home, adapter
) -> None:
    from safetensors.torch import load_file

    distill = {"teacher": str(home / "gpt2-wide"), **WIDE}
    trained = run(
        "causal-lm",
        adapter,
        task={"distill": distill},
        train={"save_strategy": "steps", "save_steps": 1, "save_total_limit": 9},
    )
    first, last = (
        load_file(next((trained / "checkpoints" / f"checkpoint-{step}").glob("[mt]*.safetensors"))) for step in (1, 4)
    )
    names = [name for name in last if BRIDGE in name]

    assert [tuple(last[name].shape) for name in names] == [(48, 32)]
    assert not torch.equal(first[names[0]], last[names[0]])
    assert not any(BRIDGE in name for name in weights(trained))
    config = json.loads(next(each for each in trained.glob("*config.json") if "gener" not in each.name).read_text())
    assert not config.get("output_hidden_states")


def test_a_teacher_without_a_share_changes_no_bit_of_a_language_model(run, weights, home, tmp_path) -> None:
    model = {"path": str(home / "gpt2-dropout")}
    plain = run("causal-lm", model=model, train={"output_dir": str(tmp_path / "plain")})
    distill = {"teacher": str(home / "gpt2-wide"), "alpha": 0}
    taught = run("causal-lm", model=model, task={"distill": distill}, train={"output_dir": str(tmp_path / "taught")})

    expected = weights(plain)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(taught).items())


def test_a_recurrent_model_learns_from_a_gpt2(run, home, tmp_path) -> None:
    from finetune.reuse import evaluate

    model = {"path": None, "config": {"model_type": "finetune-rnn-lm", "embedding_size": 16, "hidden_size": 16},
             "tokenizer": str(home / "gpt2")}  # fmt: skip
    teacher = run("causal-lm", train={"output_dir": str(tmp_path / "teacher"), "num_train_epochs": 4})
    trained = {"optim": "adamw_torch", "learning_rate": 0.01, "num_train_epochs": 4}
    found = {}
    for alpha in (0.0, 1.0):
        distill = {"teacher": str(teacher), "alpha": alpha, "temperature": 1.0}
        train = {"output_dir": str(tmp_path / str(alpha)), **trained}
        found[alpha] = evaluate(run("causal-lm", model=model, task={"distill": distill}, train=train))["test"]["nll"]

    untrained = torch.tensor(257.0).log()
    assert found[1.0].value < untrained - 1  # told nothing but the teacher's answers
    assert found[0.0].value != found[1.0].value
