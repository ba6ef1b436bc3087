"""What of a player stands still in a pass: weights that do not learn, batch norm that meets a stand-in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from finetune.training import ranks


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Keep a network's parameters out of a backward pass that goes through it."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


@contextlib.contextmanager
def unmoved(network: nn.Module, stand_in: bool) -> Iterator[None]:
    """Let batch norm go by what it knows already, and learn nothing, where a batch is a stand-in: a single image."""
    learning = [each for each in network.modules() if stand_in and isinstance(each, _BatchNorm) and each.training]
    for each in learning:
        each.eval()
    try:
        yield
    finally:
        for each in learning:
            each.train()


@torch.no_grad()
def agree(network: nn.Module, share: float, device: torch.device) -> None:
    """Give every process the mean of all processes' buffers, for each has met its own images; a count is the first's.

    Args:
        network: a player; of batch norm, whose buffers were the same everywhere before this update.
        share: of the update's rows that this process has had, 0 to 1.
        device: of this process.
    """
    for buffer in network.buffers() if ranks.world() > 1 else ():
        if buffer.is_floating_point():
            buffer.copy_(ranks.summed(buffer * share, device))
        else:
            buffer.fill_(ranks.from_first(int(buffer), device))
