"""On a GPU: runs end as they should, are the same to the bit after a kill, and stop when they are told to.

`pytest -m gpu`. FSDP shards over as many GPUs as there are; with one it writes and reads its own format all the same.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from finetune import artefact
from finetune.training import checkpoints

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
ADAM = {"optim": "adamw_torch", "max_steps": 24, "save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps",
        "eval_steps": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-3}  # fmt: skip
CELLS = [
    pytest.param(profile, kind, adapter, bf16, id=f"{profile}-{kind}-{adapter}-{'bf16' if bf16 else 'fp32'}")
    for profile, kind, adapter, bf16 in [
        ("gpu", "text-classification", "whole", False),
        ("gpu", "causal-lm", "lora", True),
        ("gpu", "masked-lm", "whole", True),
        ("gpu", "seq2seq", "whole", False),
        ("gpu", "image-vae", "whole", False),
        ("gpu", "image-gan", "whole", False),
        ("fsdp2", "causal-lm", "whole", False),
        ("fsdp2", "causal-lm", "whole", True),
        ("fsdp2", "text-classification", "whole", True),
        ("fsdp2", "text-classification", "lora", True),
    ]
]
every_cell = pytest.mark.parametrize(("profile", "kind", "adapter", "bf16"), CELLS)


def profile_of(name: str, folder: Path) -> Path:
    """Write the profile as it ships, for the GPUs that are here."""
    settings = yaml.safe_load((ROOT / "accelerate_configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    if name != "gpu":
        settings["num_processes"] = torch.cuda.device_count()
    path = folder / f"{name}-here.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def begin(recipe: Path, profile: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "finetune", "train", str(recipe), "--profile", str(profile), *more]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            cwd=ROOT, start_new_session=True)  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said[-6000:]
    return said


def wait_for_checkpoint(process: subprocess.Popen[str], run: Path) -> None:
    until = time.monotonic() + 200
    while not checkpoints.steps(run / "checkpoints") and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    assert checkpoints.steps(run / "checkpoints"), process.communicate(timeout=10)[0][-6000:]


def same_history(one: Path, other: Path) -> bool:
    """Say whether two runs logged the same numbers, the clock's apart."""

    def plain(run: Path) -> list[dict]:
        timed = ("runtime", "per_second", "time", "memory")
        return [{name: value for name, value in each.items() if not any(part in name for part in timed)}
                for each in json.loads((run / artefact.HISTORY).read_text())]  # fmt: skip

    return plain(one) == plain(other)


@pytest.fixture
def made(home, tmp_path, sections, write_recipe):
    """Return a function that writes a cell's recipe into a run folder of this name."""

    def make(name: str, kind: str, adapter: str, bf16: bool, **train) -> tuple[Path, Path]:
        options = {**ADAM, "bf16": bf16, "output_dir": str(tmp_path / name), **train}
        if kind == "image-gan":
            options.pop("optim")  # its networks' own
        return write_recipe(sections(kind, adapter, train=options), f"{name}.yaml"), tmp_path / name

    return make


@every_cell
def test_a_run_on_a_gpu_that_is_killed_is_the_unbroken_one(made, tmp_path, weights, profile, kind, adapter, bf16):
    here = profile_of(profile, tmp_path)
    (recipe, whole), (cut_recipe, cut) = made("whole", kind, adapter, bf16), made("cut", kind, adapter, bf16)
    ended(begin(recipe, here))
    process = begin(cut_recipe, here)
    wait_for_checkpoint(process, cut)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert artefact.status(cut) != "finished"
    saved = checkpoints.last_good(cut / "checkpoints")
    sharded = [each.name for each in saved.rglob("*.distcp")]
    said = ended(begin(cut_recipe, here))

    assert f"resuming from {saved}" in said
    assert bool(sharded) == (profile == "fsdp2")
    assert json.loads((whole / "environment.json").read_text())["device"].startswith("cuda")
    for run in (whole, cut):
        assert json.loads((run / artefact.VERDICT).read_text())["same"], run
    most = 1e-5 if kind == "seq2seq" else 0.0  # kernels of its attention add up in no fixed order
    for name, each in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], each, rtol=most, atol=most)
    assert same_history(whole, cut) or most


@pytest.mark.parametrize("profile", ["gpu", "fsdp2"])
def test_a_stopped_run_on_a_gpu_ends_with_143_and_goes_on(made, tmp_path, profile):
    here = profile_of(profile, tmp_path)
    recipe, run = made("run", "causal-lm", "whole", True, max_steps=4000, save_steps=4, eval_strategy="no")
    process = begin(recipe, here)
    wait_for_checkpoint(process, run)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]

    assert process.returncode == 143, said[-6000:]
    assert "finetune: stopped by SIGTERM after step" in said
    assert "Traceback" not in said
    steps = checkpoints.steps(run / "checkpoints")[-1]
    again = begin(recipe, here, "--train.max_hours", "0.0001")
    assert f"checkpoint-{steps}" in again.communicate(timeout=120)[0]
    assert again.returncode == 143


def test_a_diverging_run_on_a_gpu_stops_with_3_and_the_rows(made, tmp_path):
    recipe, run = made("run", "causal-lm", "whole", False, learning_rate=1e30, save_steps=1)
    process = begin(recipe, profile_of("gpu", tmp_path))
    said = process.communicate(timeout=200)[0]

    assert process.returncode == 3, said[-6000:]
    assert "train.jsonl:" in said
    assert "Traceback" not in said
    for step in checkpoints.steps(run / "checkpoints"):
        held = load_file(checkpoints.checkpoint_path(run / "checkpoints", step) / "model.safetensors")
        assert all(torch.isfinite(each).all() for each in held.values())
