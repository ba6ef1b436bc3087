"""The moving average of a generator's weights, which is what a run keeps."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class Average:
    """A copy of a network whose parameters follow the trained ones slowly; buffers are copied as they are.

    Args:
        network: is copied, on its device.
        decay: of the average at each step; it starts lower, at (1 + step) / (10 + step), so that what the network was
            before training is soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network: Any = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take one step of the average towards `network`, after its optimiser step number `step`, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        held, live = (list(each) for each in zip(*pairs, strict=True))
        torch._foreach_lerp_(held, live, 1 - decay)
        for buffer, other in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(other)
