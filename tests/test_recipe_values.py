from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from finetune.errors import UserError
from finetune.recipe import Recipe
from finetune.task import Columns
from finetune.tasks.text_classification import TextClassification

SMALL = {
    "task": {"kind": "text-classification"},
    "data": {"train": "reviews.csv", "validation": {"fraction": 0.1}},
    "model": {"path": "some/model"},
    "train": {"output_dir": "runs/my"},
}
CAUSAL = {"task": {"kind": "causal-lm", "prompts": ["a", "null"]}}


def recipe(**sections: Any) -> Recipe:
    return Recipe.from_dict({**SMALL, **sections})


def test_the_command_line_goes_before_the_file_and_the_file_before_the_defaults(tmp_path: Path):
    file = tmp_path / "my.yaml"
    file.write_text(
        "task: {kind: text-classification, max_length: 64}\ndata: {train: a.csv}\nmodel: {path: some/model}\n"
        "adapter: {peft_type: LORA, r: 4}\ntrain: {output_dir: runs/my, learning_rate: 1e-3, seed: 5}\n",
        encoding="utf-8",
    )

    plain, changed = Recipe.read(file), Recipe.read(file, {"train.seed": 6, "adapter": None})

    assert plain.task == TextClassification(max_length=64)
    assert (plain.train.learning_rate, plain.train.seed, plain.train.weight_decay) == (1e-3, 5, 0.0)
    assert (plain.adapter.r, plain.adapter.target_modules) == (4, "auto")
    assert (changed.train.learning_rate, changed.train.seed) == (1e-3, 6)
    assert changed.adapter is None


@pytest.mark.parametrize(
    "sections",
    [
        {},
        CAUSAL,
        {**CAUSAL, "model": {"config": {"model_type": "gpt2", "n_layer": 2, "nested": {"a": [1, None]}}}},
        {"task": {"kind": "text-classification", "labels": ["no", "yes"], "class_weights": {"no": 1, "yes": 2}}},
        {"data": {"train": [{"path": "a", "weight": 2}, {"path": "b", "weight": 1, "columns": {"text": "t"}}]}},
        {"data": {"train": ["a.csv", "b.csv"], "validation": "v.csv", "cache_dir": "cache", "leakage": "off"}},
        {"adapter": {"peft_type": "head"}},
        {"adapter": {"peft_type": "IA3"}},
        {"adapter": {"peft_type": "ADALORA", "total_step": 100}},
        {"adapter": {"peft_type": "LORA", "target_modules": ["q", "v"], "r": 4, "layers_to_transform": [0, 1]}},
        {"adapter": {"peft_type": "LORA", "target_modules": "[qv]_proj", "rank_pattern": {"x": 3}}},
        {"train": {"output_dir": "r", "max_steps": 100, "lr_scheduler_kwargs": {"min_lr": 1e-6}, "seed": 3}},
        {"train": {"output_dir": "r", "load_best_model_at_end": False, "lr_scheduler_type": "cosine"}},
        {"train": {"output_dir": "r", "load_best_model_at_end": True, "optim": "sgd", "debug": "underflow_overflow"}},
        {"train": {"output_dir": "r", "eval_strategy": "steps", "eval_steps": 10, "data_seed": 9, "bf16": False}},
        {"train": {"output_dir": "r", "activation_checkpointing": True, "report_to": "tensorboard"}},
        {"evaluate": {"resamples": 200, "reload": "same"}},
    ],
)
def test_a_written_recipe_reads_back_equal(tmp_path: Path, sections: dict):
    made = recipe(**sections)
    made.write(tmp_path / "recipe.yaml")

    found = Recipe.read(tmp_path / "recipe.yaml")

    assert found == made
    assert found.train.automatic == made.train.automatic
    assert found.to_dict() == made.to_dict()


def test_only_what_differs_from_the_defaults_is_written():
    assert recipe().to_dict() == SMALL
    assert recipe(train={"output_dir": "runs/my", "max_steps": 9, "overwrite": True}).to_dict()["train"] == {
        "output_dir": "runs/my",
        "max_steps": 9,
    }


def test_every_peft_type_gives_its_own_configuration():
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    needs = {"ADALORA": {"total_step": 10}}
    for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        more = {"num_virtual_tokens": 4} if hasattr(cls, "num_virtual_tokens") else needs.get(kind.value, {})
        made = recipe(**CAUSAL, adapter={"peft_type": kind.value, **more})

        assert type(made.adapter) is cls, kind
        assert Recipe.from_dict(made.to_dict()) == made


def test_a_task_outside_this_repository_needs_no_entry_in_a_table(tmp_path: Path):
    made = Recipe(task=Outside(words=7), data=recipe().data, model=recipe().model, train=recipe().train)
    made.write(tmp_path / "recipe.yaml")

    assert made.to_dict()["task"] == {"kind": f"{__name__}:Outside", "words": 7}
    assert Recipe.read(tmp_path / "recipe.yaml") == made


@pytest.mark.parametrize(
    ("kind", "why"), [("json:loads", "is not a finetune.Task"), ("nowhere:X", "cannot be imported")]
)
def test_a_task_that_is_none_is_refused(kind: str, why: str):
    with pytest.raises(UserError, match=rf"^task\.kind is {kind}, which {why}"):
        recipe(task={"kind": kind})


def test_contradictions_are_refused_in_python_too():
    with pytest.raises(UserError, match=r"data\.validation\.stratify .*task\.kind"):
        recipe(**CAUSAL, data={"train": "a", "validation": {"fraction": 0.1, "stratify": True}})
    with pytest.raises(UserError, match=r"train\.head_learning_rate .*task\.kind"):
        replace(recipe(**CAUSAL), train=recipe(train={"output_dir": "r", "head_learning_rate": 1e-3}).train)


def test_making_a_recipe_leaves_the_given_values_alone():
    values = {**SMALL, "adapter": {"peft_type": "LORA"}}
    before = repr(values)

    Recipe.from_dict(values)

    assert repr(values) == before


@dataclass(frozen=True)
class Outside(TextClassification):
    """A task of somebody else's."""

    words: int = 3

    kind: ClassVar[str] = "outside"

    def columns(self) -> Columns:
        return Columns(texts=("text",))
