"""The check that the processes that came up are those that were asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from finetune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import TrainingArguments

COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def check_world(options: TrainingArguments) -> None:
    """Stop a run in which fewer processes came up than were asked for, or whose sharding is silently left out.

    `accelerate launch --cpu --num_processes 2` starts one process (accelerate#2741), and FSDP on a CPU is plain DDP;
    neither says so.

    Raises:
        UserError: with the command that does what was asked.
    """
    sharded = bool(options.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if sharded and options.device.type == "cpu":
        raise UserError("FSDP does not shard on a CPU (it would be plain DDP): use the profile cpu, zero2 or zero3.")
    asked = max(asked_by_environment(os.environ), asked_by_launcher(_parent_command()))
    if asked > options.world_size:
        raise UserError(
            f"{asked} processes were asked for and {options.world_size} came up. Start them with: "
            f"accelerate launch --multi_gpu --num_processes {asked} scripts/train.py RECIPE (on CPUs too), "
            "or with a configuration of distributed_type MULTI_GPU."
        )


def asked_by_environment(environment: Mapping[str, str]) -> int:
    """Return the number of processes that a launcher announced in environment variables; 1 when there is none."""
    return max([1, *(int(environment[name]) for name in COUNTS if environment.get(name, "").isdigit())])


def asked_by_launcher(command: Sequence[str]) -> int:
    """Return the number of processes that an `accelerate launch` command asks for; 1 for any other command."""
    names = [Path(part).name for part in command]
    launched = "launch" in names and any(name in ("accelerate", "accelerate_cli.py") for name in names)
    if not (launched or "accelerate.commands.launch" in command or "accelerate-launch" in names):
        return 1
    given = _option(command, "--num_processes", "--num-processes")
    if given is not None:
        return int(given) if given.isdigit() else 1
    file = Path(_option(command, "--config_file", "--config-file") or _default_configuration())
    found: Any = yaml.safe_load(file.read_text()) if file.is_file() else {}
    count = found.get("num_processes") if isinstance(found, dict) else None
    return count if isinstance(count, int) else 1


def _option(command: Sequence[str], *names: str) -> str | None:
    for place, part in enumerate(command):
        name, equals, value = part.partition("=")
        if name in names:
            return value if equals else next(iter(command[place + 1 :]), None)
    return None


def _default_configuration() -> str:
    from accelerate.commands.config.config_args import default_config_file  # `accelerate config` writes it

    return str(default_config_file)


def _parent_command() -> list[str]:
    """Return the command line of the parent process; [] when the system does not say."""
    import psutil  # type: ignore[import-untyped]

    try:
        parent = psutil.Process().parent()
        return parent.cmdline() if parent else []
    except psutil.Error:  # another user's process, or one that has ended: nothing to learn from it
        return []
