from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_training import rows, trainer

from finetune import artefact
from finetune.errors import EnvironmentFailed

PICKLES = """
import sys
def hook(event, args):
    if event == "pickle.find_class" and sys.argv[2:] == ["watch"]:
        sys.stderr.write(f"pickle: {args}"); sys.stderr.flush(); import os; os._exit(9)
from tiny_training import model, rows, trainer
from finetune.training import checkpointed
sys.addaudithook(hook)
for resume in (False, True):
    trainer(sys.argv[1], train=rows(24), evaluate=rows(9, 1), num_train_epochs=2).train(resume_from_checkpoint=resume)
"""


def started(code: str, *arguments: str) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)


@pytest.mark.faults
def test_training_and_resuming_unpickle_nothing(tmp_path):
    process = started(PICKLES, str(tmp_path / "run"), "watch")

    assert process.wait(200) == 0


@pytest.mark.faults
def test_a_file_system_that_refuses_a_file_leaves_no_part_of_a_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = trainer(tmp_path, train=rows(8), max_steps=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        with pytest.raises(EnvironmentFailed, match="the disk is full"):
            run.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_run_whose_report_could_not_be_written_is_not_finished_and_goes_on(run, tmp_path, monkeypatch, contract):
    def full(*_):
        raise OSError(28, "No space left on device", "report.html")

    with monkeypatch.context() as patch:
        patch.setattr("finetune.evaluation.report.write_report", full)
        with pytest.raises(EnvironmentFailed, match="the disk is full"):
            run("text-classification")
    assert artefact.status(tmp_path / "run") == "unfinished"
    assert (run("text-classification") / "report.html").exists()
    assert artefact.status(tmp_path / "run") == "finished"
    contract("R6", unfinished_reports=1)


@pytest.mark.faults
def test_workers_end_when_their_launcher_is_killed(sections, write_recipe, tmp_path):
    made = sections("text-classification", train={"num_train_epochs": 100000, "use_cpu": True})
    command = [sys.executable, "-m", "finetune", "train", str(write_recipe(made)), "--profile", "cpu"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
        "OMP_NUM_THREADS": "1",
    }
    launcher = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    workers: list[int] = []
    limit = time.monotonic() + 200
    while time.monotonic() < limit and not (len(workers) == 2 and (tmp_path / "run" / "run.json").exists()):
        time.sleep(0.2)
        workers = [int(word) for word in children.read_text().split()]
    assert len(workers) == 2  # and both are training, or about to
    launcher.kill()
    launcher.wait()

    limit = time.monotonic() + 30
    while time.monotonic() < limit and any(Path(f"/proc/{each}").exists() for each in workers):
        time.sleep(0.2)
    left = [each for each in workers if Path(f"/proc/{each}").exists()]
    for each in left:
        os.kill(each, signal.SIGKILL)
    assert not left
