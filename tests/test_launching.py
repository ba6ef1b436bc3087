from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import accelerate.commands.launch
import psutil
import pytest

from finetune.launching import launch


@pytest.fixture
def asked(monkeypatch):
    """What accelerate is asked to launch."""
    found = []
    monkeypatch.setattr(accelerate.commands.launch, "launch_command", found.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return found


def test_a_launch_on_one_machine_has_a_free_port_of_its_own(asked):
    with socket.socket() as usual:
        usual.bind(("127.0.0.1", 0))
        usual.listen()
        taken = usual.getsockname()[1]
        assert [launch("cpu", ["env"]) for _ in range(3)] == [0, 0, 0]

    for each in asked:
        assert each.main_process_port not in (None, 0, 29500, taken)
        with socket.socket() as free:
            free.bind(("127.0.0.1", each.main_process_port))  # nobody's


def test_a_profile_that_names_its_port_keeps_it(asked):
    launch("multi_node", ["env"])

    assert asked[0].main_process_port is None  # the file's own is read by accelerate


def test_a_signal_before_there_is_a_worker_ends_the_command(monkeypatch):
    def signalled(arguments):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it was started all the same")

    monkeypatch.setattr(accelerate.commands.launch, "launch_command", signalled)

    with pytest.raises(KeyboardInterrupt):
        launch("gpu", ["env"])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_launcher_of_one_process_takes_it_along(sections, write_recipe, tmp_path, number):
    made = sections("text-classification", train={"num_train_epochs": 100000, "save_steps": 10000})
    command = [sys.executable, "-m", "finetune", "train", str(write_recipe(made)), "--profile", "gpu"]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), *sys.path]))
    launcher = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = []
    for line in launcher.stdout:
        said.append(line)
        if line.startswith("step "):  # it trains
            break
    (worker,) = psutil.Process(launcher.pid).children()
    launcher.send_signal(number)
    said.append(launcher.communicate(timeout=60)[0])  # the worker has closed its end too

    killed = number == signal.SIGKILL
    assert launcher.returncode == (-number if killed else 143), said
    assert f"finetune: stopped by {'SIGTERM' if killed else number.name} after step" in said[-1]
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert (tmp_path / "run" / "checkpoints").is_dir()
