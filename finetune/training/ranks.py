"""What the processes of a run tell each other: sums, agreement, text. With one process nothing is sent."""

from __future__ import annotations

import json
import time
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import gather, pad_across_processes
from torch import Tensor

from finetune.errors import CheckFailed, EnvironmentFailed, FinetuneError, UserError

FIRST_IS_HERE, PAUSE = "finetune/first-is-here", 0.5  # a key of the processes' store; seconds between two looks at it
ENDS: dict[int, type[FinetuneError]] = {each.exit_code: each for each in (UserError, CheckFailed, EnvironmentFailed)}


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def summed(values: Tensor, device: torch.device) -> Tensor:
    """Return the elementwise sum over all processes, in double precision, on `device`."""
    total = values.to(device, torch.float32 if device.type == "mps" else torch.float64)
    if world() > 1:
        dist.all_reduce(total)
    return total


def any_of(flag: bool, device: torch.device) -> bool:
    """Say whether the flag is up on any process."""
    return bool(summed(torch.tensor([float(flag)]), device).item()) if world() > 1 else flag


def from_first(number: int, device: torch.device) -> int:
    """Return what process 0 has."""
    if world() == 1:
        return number
    held = torch.tensor([number], device=device)
    dist.broadcast(held, src=0)
    return int(held.item())


def wait_for_first(device: torch.device) -> None:
    """Wait for all processes, however long process 0 has been at work alone.

    A collective, a barrier among them, ends a process that waits in it for longer than `ddp_timeout`.
    """
    if world() == 1:
        return
    store = dist.distributed_c10d._get_default_store()
    if rank() == 0:
        store.set(FIRST_IS_HERE, "")
    while not store.check([FIRST_IS_HERE]):
        time.sleep(PAUSE)
    any_of(False, device)  # all have seen it; read back, for NCCL waits only when its result is asked for
    if rank() == 0:
        store.delete_key(FIRST_IS_HERE)


def stacked(values: Tensor, device: torch.device, filling: int) -> Tensor:
    """Return the rows of all processes, on the CPU.

    Trailing dimensions are padded with 0 to the longest; a process with fewer rows adds rows of `filling`.
    """
    if world() == 1:
        return values.cpu()
    sent = values.to(device, torch.uint8 if values.dtype == torch.bool else values.dtype)
    for dim in range(1, sent.dim()):
        sent = pad_across_processes(sent, dim=dim)
    gathered: Tensor = gather(pad_across_processes(sent, dim=0, pad_index=filling).contiguous())
    return gathered.to("cpu", values.dtype)


def all_said(said: Any, device: torch.device) -> list[Any]:
    """Return what every process has said (anything JSON can hold), by process."""
    if world() == 1:
        return [said]
    letters = torch.frombuffer(bytearray(json.dumps(said).encode() + b"\n"), dtype=torch.uint8).to(torch.int32)
    padded = pad_across_processes(letters.to(device)[None], dim=1)
    rows = gather(padded).cpu().to(torch.uint8)
    return [json.loads(bytes(row.tolist()).split(b"\n")[0]) for row in rows]


def together(failed: BaseException | None, device: torch.device) -> None:
    """Wait for all processes; raise here what failed here, and on the others what has its exit code."""
    codes = torch.zeros(1 + max(ENDS))
    if failed is not None:
        code = failed.exit_code if isinstance(failed, FinetuneError) else EnvironmentFailed.exit_code
        codes[code if code in ENDS else EnvironmentFailed.exit_code] = 1
    anywhere = summed(codes, device).nonzero().flatten().tolist() if world() > 1 else []
    if failed is not None:
        raise failed
    if anywhere:
        raise ENDS[anywhere[0]]("another process failed; its message says why.")
