from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from transformers import TrainingArguments

from finetune.errors import UserError
from finetune.training import devices, world
from finetune.training.option_tables import ADDED, REDEFAULTED, REFUSED, RESUME
from finetune.training.options import TrainOptions, fitted_to, resume_stamp


def options(tmp_path, **given):
    return TrainOptions(output_dir=str(tmp_path), **given)


def fitted(tmp_path, validation=True, **given):
    return fitted_to(options(tmp_path, **given), validation, "nll", False)


def test_the_tables_name_options_that_exist():
    ours = {each.name for each in dataclasses.fields(TrainOptions)}
    theirs = {each.name for each in dataclasses.fields(TrainingArguments)}

    assert set(ADDED) == ours - theirs
    assert set(REDEFAULTED) | set(REFUSED) | set(RESUME) <= ours
    assert not set(REFUSED) & (set(REDEFAULTED) | set(RESUME))


@pytest.mark.parametrize("name", ["eval_on_start", "ignore_data_skip"])
def test_what_would_not_resume_as_it_was_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=rf"train\.{name} is not an option here: "):
        options(tmp_path, **{name: True})


def test_the_tables_load_without_torch():
    code = "import sys, finetune.training.option_tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("push_to_hub", True),
        ("hub_token", "hf_abc"),
        ("auto_find_batch_size", True),
        ("save_only_model", True),
        ("enable_jit_checkpoint", True),
        ("resume_from_checkpoint", "somewhere"),
        ("label_names", ["labels"]),
        ("remove_unused_columns", False),
        ("do_train", True),
        ("label_smoothing_factor", 0.1),
        ("train_sampling_strategy", "batch_rebalance"),
        ("accelerator_config", {"even_batches": False}),
        ("fp16", True),  # on a CPU together with bf16
    ],
)
def test_refused_options_say_what_to_use_instead(tmp_path, name, value):
    with pytest.raises(UserError) as caught:
        options(tmp_path, **{name: value}, **({"bf16": True} if name == "fp16" else {}))

    assert "\n" not in str(caught.value)
    assert "hf_abc" not in str(caught.value)
    assert len(str(caught.value)) > 40


@pytest.mark.parametrize(
    ("given", "evaluated", "saved"),
    [
        ({}, ("epoch", None), ("epoch", None)),
        ({"num_train_epochs": 1}, ("steps", 0.25), ("steps", 0.25)),
        ({"max_steps": 500}, ("steps", 0.1), ("steps", 0.1)),
        ({"eval_steps": 50}, ("steps", 50), ("steps", 50)),
        ({"save_steps": 100}, ("steps", 100), ("steps", 100)),
        ({"eval_strategy": "steps", "eval_steps": 20, "save_steps": 40}, ("steps", 20), ("steps", 40)),
        ({"max_steps": 9, "eval_strategy": "epoch"}, ("epoch", None), ("epoch", None)),
        ({"save_strategy": "best"}, ("epoch", None), ("best", None)),
    ],
)
def test_the_cadence_suits_the_run_and_what_is_given_wins(tmp_path, given, evaluated, saved):
    made = fitted(tmp_path, **given)

    assert made.eval_strategy == evaluated[0]
    assert made.save_strategy == saved[0]
    assert evaluated[1] in (None, made.eval_steps)
    assert saved[1] in (None, made.save_steps)
    assert made.load_best_model_at_end
    assert (made.metric_for_best_model, made.greater_is_better) == ("eval_nll", False)


def test_without_validation_nothing_is_evaluated_and_checkpoints_are_kept_all_the_same(tmp_path):
    made = fitted(tmp_path, validation=False)

    assert (made.eval_strategy, made.save_strategy, made.load_best_model_at_end) == ("no", "epoch", False)


@pytest.mark.parametrize(
    "given",
    [
        {"eval_strategy": "epoch"},
        {"load_best_model_at_end": True},
        {"early_stopping_patience": 2},
        {"save_strategy": "best"},
    ],
)
def test_what_needs_validation_rows_is_refused_without_them(tmp_path, given):
    with pytest.raises(UserError, match=f"train.{next(iter(given))}.*data.validation"):
        fitted(tmp_path, validation=False, **given)


def test_another_score_must_say_which_way_is_better(tmp_path):
    with pytest.raises(UserError, match="greater_is_better"):
        fitted(tmp_path, metric_for_best_model="perplexity")

    assert fitted(tmp_path, metric_for_best_model="f1", greater_is_better=True).greater_is_better


def test_a_schedule_that_watches_a_score_knows_which_way_is_better(tmp_path):
    made = options(tmp_path, lr_scheduler_type="reduce_lr_on_plateau")

    assert fitted_to(made, True, "accuracy", True).lr_scheduler_kwargs == {"mode": "max"}
    assert fitted_to(made, True, "nll", False).lr_scheduler_kwargs == {"mode": "min"}
    assert fitted_to(made, True, "nll", False).metric_for_best_model == "eval_nll"


def test_two_cadences_that_cannot_choose_a_best_one_are_refused_only_when_it_is_asked_for(tmp_path):
    given = {"eval_strategy": "epoch", "save_steps": 7}

    assert not fitted(tmp_path, **given).load_best_model_at_end
    with pytest.raises(UserError, match="load_best_model_at_end"):
        fitted(tmp_path, load_best_model_at_end=True, **given)


def test_fitting_twice_changes_nothing(tmp_path):
    once = fitted(tmp_path, max_steps=3)
    assert dataclasses.asdict(fitted_to(once, True, "nll", False)) == dataclasses.asdict(once)


def test_the_stamp_holds_plain_values(tmp_path):
    stamp = resume_stamp(options(tmp_path, learning_rate=2e-4))

    assert stamp["learning_rate"] == 2e-4
    assert stamp["seed"] == stamp["data_seed"] == 13
    assert stamp["optim"] == "adamw_torch_fused"
    assert all(value is None or type(value) in (int, float, str, bool) for value in stamp.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512vl avx512bw avx512dq\n", False),  # oneDNN would emulate it
        ("", False),
    ],
)
def test_bf16_is_chosen_on_a_cpu_that_computes_in_it(tmp_path, text, expected):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: x\n{text}")

    assert devices.computes_bf16(on_cpu=True, cpuinfo=file) is expected
    assert devices.computes_bf16(on_cpu=True, cpuinfo=tmp_path / "none") is False


def test_the_recipe_overrules_the_chosen_precision(tmp_path, monkeypatch):
    monkeypatch.setattr("finetune.training.options.computes_bf16", lambda on_cpu: True)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)

    assert options(tmp_path).bf16
    assert not options(tmp_path, bf16=False).bf16
    monkeypatch.setattr("finetune.training.options.computes_bf16", lambda on_cpu: False)
    assert not options(tmp_path).bf16
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert options(tmp_path).bf16


def test_activation_checkpointing_is_not_reentrant_under_either_name(tmp_path):
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        made = options(tmp_path, **{name: True})
        assert made.activation_checkpointing
        assert made.activation_checkpointing_kwargs == {"use_reentrant": False}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python", "/bin/accelerate", "launch", "--cpu", "--num_processes", "2", "train.py"], 2),
        (["accelerate", "launch", "--num_processes=3", "train.py"], 3),
        (["accelerate", "launch", "--config_file", "FILE", "train.py"], 4),
        (["python", "-m", "accelerate.commands.launch", "--num_processes", "2", "train.py"], 2),
        (["accelerate", "launch", "train.py"], 1),
        (["bash", "-c", "finetune train --num_processes 2"], 1),
        ([], 1),
    ],
)
def test_the_number_of_processes_is_read_off_the_launcher(tmp_path, monkeypatch, command, expected):
    file = tmp_path / "two.yaml"
    file.write_text("distributed_type: MULTI_CPU\nnum_processes: 4\n")
    monkeypatch.setattr(world, "_default_configuration", lambda: str(tmp_path / "none.yaml"))

    assert world.asked_by_launcher([str(file) if part == "FILE" else part for part in command]) == expected


def test_a_world_that_is_smaller_than_asked_for_stops_the_run(tmp_path, monkeypatch):
    made = options(tmp_path)
    world.check_world(made)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")

    with pytest.raises(UserError, match=r"2 processes were asked for and 1 came up.*accelerate launch --multi_gpu"):
        world.check_world(made)


def test_fsdp_on_a_cpu_is_refused(tmp_path, monkeypatch):
    made = options(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")

    with pytest.raises(UserError, match="FSDP does not shard on a CPU"):
        world.check_world(made)
