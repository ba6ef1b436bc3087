"""Numbers, schedules and optimisers of `train` that cannot be meant: one line, exit 2, nothing written."""

from __future__ import annotations

import os
from typing import Any

import pytest
from test_broken_inputs import files_of, place, refused, write

from finetune.errors import UserError
from finetune.training.options import TrainOptions

__all__ = ["place"]  # the fixture

NAN, FOREVER = float("nan"), float("inf")
NUMBERS: list[tuple[str, Any]] = [
    ("seed", -1), ("seed", 2**33), ("data_seed", -1),
    ("learning_rate", -1.0), ("learning_rate", NAN), ("learning_rate", FOREVER), ("head_learning_rate", -1e-3),
    ("weight_decay", -1.0), ("adam_beta1", 1.5), ("adam_beta2", 1.0), ("adam_beta2", -0.1), ("adam_epsilon", -1e-8),
    ("max_grad_norm", NAN), ("max_grad_norm", -1.0), ("warmup_steps", NAN), ("neftune_noise_alpha", -1.0),
    ("per_device_train_batch_size", 0), ("per_device_train_batch_size", -1), ("per_device_eval_batch_size", 0),
    ("per_device_eval_batch_size", -1), ("gradient_accumulation_steps", 0), ("gradient_accumulation_steps", -1),
    ("dataloader_num_workers", -1), ("dataloader_persistent_workers", True),
    ("dataloader_multiprocessing_context", "fork"), ("dataloader_prefetch_factor", 0),
    ("num_train_epochs", 0.0), ("num_train_epochs", -1.0), ("num_train_epochs", FOREVER),
    ("max_steps", 0), ("max_steps", -2), ("logging_steps", -1.0), ("eval_steps", -5.0), ("save_steps", NAN),
    ("early_stopping_patience", 0), ("early_stopping_patience", -3), ("max_hours", NAN), ("ddp_timeout", 0),
    ("torch_compile_backend", "nope"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), NUMBERS)
def test_a_number_that_cannot_be_meant_is_refused_by_its_name(tmp_path: Any, name: str, value: Any):
    before = dict(os.environ)

    with pytest.raises(UserError, match=rf"^train\.{name} (is|needs) [^\n]+\.$"):
        TrainOptions(output_dir=str(tmp_path), **{name: value})

    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 0.0, "weight_decay": 0.0, "max_grad_norm": 0.0, "adam_beta1": 0.0, "adam_epsilon": 0.0},
        {"max_grad_norm": FOREVER, "warmup_steps": 0.1, "seed": 0, "data_seed": 2**32 - 1},
        {"max_steps": 3, "num_train_epochs": 0.0},  # which max_steps overrules
        {"num_train_epochs": 0.5, "early_stopping_patience": 1, "ddp_timeout": 1},
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True, "dataloader_prefetch_factor": 1,
         "dataloader_multiprocessing_context": "spawn"},
        {"logging_steps": 0.5, "eval_steps": 0, "save_steps": 7},
    ],
)  # fmt: skip
def test_numbers_at_the_edge_are_taken(tmp_path: Any, given: dict[str, Any]):
    made = TrainOptions(output_dir=str(tmp_path), **given)

    assert {name: getattr(made, name) for name in given if name != "eval_steps"} == {
        name: value for name, value in given.items() if name != "eval_steps"
    }


# (options of `train`, what the line says)
CASES: list[tuple[dict[str, Any], str]] = [
    ({"seed": -1}, r"train\.seed is -1; give a whole number from 0 to 4294967295\."),
    ({"num_train_epochs": 0, "max_steps": None}, r"recipe\.yaml:\d+: train\.num_train_epochs is 0.*above 0"),
    ({"lr_scheduler_kwargs": {"foo": 1}}, r"train\.lr_scheduler_kwargs: linear .*'foo'"),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, r"train\.lr_scheduler_kwargs: cosine_with_min_lr .*min_lr"),
    ({"lr_scheduler_type": "warmup_stable_decay"}, r"train\.lr_scheduler_kwargs: warmup_stable_decay .*decay_steps"),
    (
        {"lr_scheduler_type": "polynomial", "max_steps": 4, "warmup_steps": 4},
        r"train\.lr_scheduler_type: polynomial has no learning rate after step 4 of 4, 4 of them warm-up .*division by",
    ),
    (
        {"lr_scheduler_type": "polynomial", "max_steps": None, "num_train_epochs": 2, "warmup_steps": 0.9},
        r"train\.lr_scheduler_type: polynomial has no learning rate after step 6 of 6, 6 of them warm-up .*division by",
    ),
    (
        {"lr_scheduler_type": "polynomial", "max_steps": 4, "warmup_steps": 2, "lr_scheduler_kwargs": {"power": "2"}},
        r"train\.lr_scheduler_type: polynomial has no learning rate after step 2 of 4, 2 of them warm-up .*'str'",
    ),
    (
        {"lr_scheduler_type": "polynomial", "max_steps": 4, "lr_scheduler_kwargs": {"power": -1}},
        r"train\.lr_scheduler_type: polynomial has no learning rate after step 4 of 4, 0 of them warm-up .*0\.0 cannot",
    ),
    (
        {"lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": {"timescale": 0}},
        r"train\.lr_scheduler_kwargs: inverse_sqrt cannot be made: .*division by zero",
    ),
    (
        {"lr_scheduler_type": "inverse_sqrt", "max_steps": 4, "lr_scheduler_kwargs": {"timescale": FOREVER}},
        r"train\.lr_scheduler_type: inverse_sqrt has no learning rate after step 0 of 4, 0 of them warm-up .*nan",
    ),
    ({"optim": "galore_adamw"}, r"train\.optim: galore_adamw .*galore_torch"),
    ({"optim": "schedule_free_adamw"}, r"train\.optim: schedule_free_adamw .*schedulefree"),
    ({"optim": "adamw_anyprecision"}, r"train\.optim: adamw_anyprecision .*torchdistx"),
    ({"optim": "sgd", "optim_args": "momentum"}, r"train\.optim_args: .*momentum"),
    ({"optim": "sgd", "optim_args": "momentum=-1"}, r"train\.optim: sgd .*momentum"),
    ({"fp16": True}, r"train\.fp16: .*CPU.*fp32"),
]
READ_OFF = {"seed", "num_train_epochs"}  # the others are tried out on the parameters of the model


@pytest.mark.parametrize(("train", "line"), CASES, ids=[str(case[0]) for case in CASES])
def test_what_cannot_train_is_one_line_exit_2_and_nothing_written(
    place: Any, capsys: pytest.CaptureFixture[str], contract: Any, train: dict[str, Any], line: str
):
    write(place, {}, {"train": train})
    before = files_of(place)

    refused(capsys, contract, line, weights=bool(set(train) - READ_OFF))
    assert files_of(place) == before
