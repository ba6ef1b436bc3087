from __future__ import annotations

import socket

import accelerate.commands.launch
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
