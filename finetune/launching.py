"""Start a verb on several processes: `--profile NAME` is `accelerate launch --config_file NAME.yaml` by one command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import yaml

from finetune.errors import Stopped, UserError, did_you_mean

PR_SET_PDEATHSIG = 1  # of Linux's prctl
LAUNCHED = "FINETUNE_LAUNCHED"  # in the environment of what `launch`, a sweep or train.seeds starts
GRACE = 600  # seconds for a step and its checkpoint after a signal; torchrun's own 30 are too few for large models
PACKAGE = Path(__file__).parent
FOLDERS = (PACKAGE.parent / "accelerate_configs", PACKAGE / "accelerate_configs")  # a checkout; a wheel


def profile_file(profile: str) -> Path:
    """Return the accelerate configuration of a profile's name, or of a path; UserError names the nearest profile."""
    if Path(profile).suffix in (".yaml", ".yml") or os.sep in profile:
        if not Path(profile).is_file():
            raise UserError(f"--profile {profile}: there is no such file.")
        return Path(profile)
    known = {file.stem: file for folder in reversed(FOLDERS) for file in sorted(folder.glob("*.yaml"))}
    if profile not in known:
        raise UserError(f"--profile {profile}: known: {', '.join(sorted(known))}.{did_you_mean(profile, known)}")
    return known[profile]


def launch(profile: str, arguments: list[str]) -> int:
    """Run `finetune ARGUMENTS` in the processes of a profile and return their exit code.

    The launcher runs inside this process: what fails in a worker has been said by that worker, so the launcher's own
    report of it is left out, and its code is that of the worker that failed first.
    """
    file = profile_file(profile)
    settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    if settings.get("use_cpu"):  # accelerate announces it to itself alone; without it each worker trains by itself
        arguments = [*arguments, "--train.use_cpu=true"]
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(settings)))
    os.environ[LAUNCHED] = "1"
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(GRACE))
    _quiet_launcher()
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    command = ["--config_file", str(file), *_port(settings), "--module", "finetune", *arguments]
    try:
        with _handing_on():
            launch_command(launch_command_parser().parse_args(command))
    except ChildFailedError as error:
        return _shell_code(error.get_first_failure()[1].exitcode)
    except subprocess.CalledProcessError as error:  # a profile of one process, or of a foreign launcher
        return _shell_code(error.returncode)
    except SignalException:  # it was handed on to the workers, which have stopped
        return Stopped.exit_code
    return 0


def _port(settings: dict[str, object]) -> list[str]:
    """Return the option of a port that is free, for processes of this machine alone; [] where the profile names one.

    Where accelerate's usual one is taken, by another training say, it changes to a rendezvous that unpickles what it
    finds in a store, which listens to the network.
    """
    if "main_process_port" in settings or settings.get("num_machines", 1) != 1:
        return []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return ["--main_process_port", str(free.getsockname()[1])]


def end_with_launcher() -> None:
    """Let the kernel end this worker when its launcher is gone; nothing in a process that no launcher started.

    Killed outright, a launcher tells its workers nothing, and they would wait for one another for half an hour.
    """
    if not {LAUNCHED, "TORCHELASTIC_RUN_ID"} & os.environ.keys() or not sys.platform.startswith("linux"):
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it went before it was asked about
        sys.exit(128 + signal.SIGTERM)


@contextmanager
def _handing_on() -> Iterator[None]:
    """Hand SIGTERM and SIGINT on to what accelerate has started, and wait for its end.

    torchrun does so by itself, by handlers in place of these; for a profile of one process accelerate uses none, and
    would end by the signal while the training goes on.
    """
    import psutil  # type: ignore[import-untyped]

    def hand_on(number: int, frame: FrameType | None) -> None:
        children = psutil.Process().children()
        for child in children:
            child.send_signal(number)
        if not children:  # none has been started yet: the command itself is what ends
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, hand_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _shell_code(code: int) -> int:
    """Return the exit code as a shell gives it: 143 for a process that signal 15 ended."""
    return 128 - code if code < 0 else code


def _threads(settings: dict[str, object]) -> int:
    """Return the threads for each process: the cores of this machine shared among its processes."""
    processes = settings.get("num_processes")
    machines = settings.get("num_machines")
    here = (processes if isinstance(processes, int) else 1) // (machines if isinstance(machines, int) else 1)
    return max(1, (os.cpu_count() or 1) // max(1, here))


def _quiet_launcher() -> None:
    import logging

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    logging.getLogger("torch.distributed.run").setLevel(logging.ERROR)
