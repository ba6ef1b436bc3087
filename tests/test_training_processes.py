from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import SGD, model, rows, trainer, weights
from torch.testing import assert_close

from finetune.errors import CheckFailed, EnvironmentFailed, FinetuneError, UserError
from finetune.training import ranks

ROOT = Path(__file__).parent.parent
SCRIPT = str(ROOT / "tests" / "launched_training.py")
COMMANDS = {
    "ddp": ["--multi_gpu", "--num_processes", "2"],
    "ruined": ["--multi_gpu", "--num_processes", "2"],
    "zero": ["--config_file", str(ROOT / "accelerate_configs" / "zero2.yaml"), "--num_processes", "2"],
    "zero3": ["--config_file", str(ROOT / "accelerate_configs" / "zero3.yaml"), "--num_processes", "2"],
    "one": ["--cpu", "--num_processes", "2"],
}


def launch(folder: Path, kind: str) -> subprocess.CompletedProcess[str]:
    """Launch the script; nothing but the absence of a GPU says that the run is on a CPU."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *COMMANDS[kind], "--main_process_port", "0"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run(
        [*command, SCRIPT, str(folder), kind], capture_output=True, text=True, timeout=280, env=environment, check=False
    )


def results(folder: Path) -> list[dict]:
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    done = launch(folder, "ddp")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return folder


def test_two_processes_come_up_on_a_machine_without_a_gpu(two):
    assert [each["world"] for each in results(two)] == [2, 2]
    assert {each["type"] for each in results(two)} == {"DistributedType.MULTI_CPU"}


def alone(adapter: bool, count: int):
    run = trainer(
        train=rows(count),
        evaluate=rows(19, 1),
        network=model(adapter=adapter),
        per_device_train_batch_size=16,
        num_train_epochs=2,
        load_best_model_at_end=False,
        logging_steps=1,
        **SGD,
    )
    run.train()
    return run


def assert_same_history(given, expected):
    for one, other in zip(given, expected, strict=True):
        for name in {"loss", "grad_norm", "eval_accuracy", "eval_nll"} & other.keys():
            assert one[name] == pytest.approx(other[name], rel=1e-4)


@pytest.mark.parametrize("count", [33, 37])  # the last step has one row, or five, for two processes
@pytest.mark.parametrize("adapter", [False, True])
def test_two_processes_take_the_steps_of_one_and_answer_as_it_does(two, adapter, count):
    one = alone(adapter, count)
    cell = f"{adapter}-{count}"

    assert_close(load_file(two / f"steps-{cell}.safetensors"), weights(one.model), rtol=1e-4, atol=1e-6)
    answers = load_file(two / f"answers-{cell}.safetensors")["logits"].numpy()
    assert answers == pytest.approx(one.answers(rows(19, 1))["logits"], rel=1e-4, abs=1e-5)
    for result in results(two):
        found = result["steps"][cell]
        assert found["one"] == 1
        assert found["tokens"] == one.state.num_input_tokens_seen
        assert_same_history(found["history"], one.history)


@pytest.mark.parametrize("kind", ["resumed", "stream"])
def test_two_processes_resume_bit_for_bit_from_a_file_each(two, kind):
    for result in results(two):
        assert result[kind]["same"]
        assert result[kind]["best"]
        assert {"process-0.json", "process-1.json", "manifest.json"} <= set(result[kind]["files"])
        assert {Path(name).suffix for name in result[kind]["files"]} == {".json", ".safetensors"}


SAID = {
    "label": "the loss is not a finite number; the step was not taken",
    "weights": "the loss is not a finite number; the step was not taken",
    "gradient": "the gradient is not a finite number; the step was not taken",
    "rate": "the weights are no longer finite numbers; the step was taken",
}


def assert_stopped(folder, count, gathered=False):
    """Hold every training that one process ruined to its line, its rows and its checkpoints."""
    first, second = (each["ruined"] for each in results(folder))
    assert first == second
    assert len(first) == count
    for found in first:
        source, step = found["cell"]
        assert found["said"].startswith(f"CheckFailed: step {step}: {SAID[source]}"), found
        assert found["step"] == step
        assert found["kept"] == ([f"checkpoint-{step - 1}"] if step > 1 else [])
        both = [f"numbers.csv:{2 * step + process}" for process in (0, 1)]
        # A loss is one process's own; a step is that of both, and so may be a weight that ZeRO-3 gathers.
        shared = source in ("gradient", "rate")
        assert found["rows"] in ([both] if shared else [[both[step % 2]], *([both] if gathered else [])]), found


def test_what_is_not_finite_on_one_of_two_processes_stops_both_and_names_its_rows(two, contract):
    assert_stopped(two, 16)
    contract("R7", injected=16)


@pytest.mark.slow
def test_so_it_is_at_every_step_wherever_it_comes_from(tmp_path, contract):
    done = launch(tmp_path, "ruined")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]

    assert_stopped(tmp_path, 32)
    contract("R7", injected=32)


def test_a_disk_that_is_full_for_one_process_ends_both(two):
    assert {each["full"] for each in results(two)} == {"EnvironmentFailed"}
    assert not list((two / "full" / "checkpoints").glob("*checkpoint*"))


@pytest.mark.parametrize("error", [CheckFailed, UserError, EnvironmentFailed, OSError])
def test_what_fails_on_one_process_ends_the_others_with_its_exit_code(monkeypatch, error):
    def all_reduce(values, device, told=[]):  # noqa: B006 -- what the first process has said
        told.append(values.double())
        return sum(told)

    monkeypatch.setattr(ranks, "world", lambda: 2)
    monkeypatch.setattr(ranks, "summed", all_reduce)
    with pytest.raises(error, match="here"):
        ranks.together(error("here"), torch.device("cpu"))
    with pytest.raises(FinetuneError, match=r"^another process failed; its message says why\.$") as caught:
        ranks.together(None, torch.device("cpu"))
    assert caught.value.exit_code == getattr(error, "exit_code", 4)


def test_a_check_that_fails_on_one_process_is_a_failed_check_on_both(two):
    said = [each["failed"] for each in results(two)]

    assert said == [
        "CheckFailed: the best one is damaged.",
        "CheckFailed: another process failed; its message says why.",
    ]


@pytest.mark.slow
def test_a_launcher_that_starts_one_process_instead_of_two_is_caught(tmp_path):
    done = launch(tmp_path, "one")

    assert done.returncode != 0
    assert "2 processes were asked for and 1 came up" in done.stderr


@pytest.mark.slow
def test_zero2_takes_the_steps_of_one_process_and_resumes(tmp_path):
    done = launch(tmp_path, "zero")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]

    one = alone(adapter=False, count=37)
    for result in results(tmp_path):
        assert result["world"] == 2
        assert result["type"] == "DistributedType.DEEPSPEED"
        assert result["resumed"]["same"]
        assert result["adapter"]["same"]
        assert_same_history(result["steps"]["False-37"]["history"], one.history)
    assert_stopped(tmp_path, 8)
    assert_close(load_file(tmp_path / "steps-False-37.safetensors"), weights(one.model), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_zero3_saves_no_weight_that_is_not_finite(tmp_path, contract):
    done = launch(tmp_path, "zero3")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]

    assert [each["type"] for each in results(tmp_path)] == ["DistributedType.DEEPSPEED"] * 2
    assert_stopped(tmp_path, 8, gathered=True)
    contract("R7", injected=8)
