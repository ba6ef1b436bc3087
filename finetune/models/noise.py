"""Random numbers that belong to a row and not to a process.

What a generative model draws for a row (posterior noise, latents, dropped words, a flip) is a hash of (seed, step,
row). So two processes take the step of one, accumulated micro-batches that of one batch, and a resumed run the unbroken
one's, with no generator whose state would have to be kept. The hash is SplitMix64 (Steele, Lea & Flood 2014,
doi:10.1145/2660193.2660195), used as a counter-based generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
MIX = (-4658895280553007687, -7723592293110705685)  # 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
FIXED = -1  # the step of numbers that do not change while a model trains: evaluation, sample grids


def keys(seed: int, step: int, rows: Tensor) -> Tensor:
    """Return one key a row, of shape (batch,), int64; `step` FIXED is for what must not change during training."""
    key = torch.full_like(rows, seed, dtype=torch.int64)
    for part in (torch.full_like(key, step), rows.to(torch.int64)):
        key = _mixed(key * GOLDEN + part)
    return key


def uniform(keys: Tensor, count: int, stream: int = 0) -> Tensor:
    """Return `count` numbers in (0, 1) for each key, of shape (batch, count), float32.

    Args:
        keys: shape (batch,), int64, as `keys` returns them.
        count: how many numbers a key.
        stream: numbers of different streams are independent; one for each purpose.
    """
    places = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64) * GOLDEN
    bits = _mixed(_mixed(keys + _wrapped(stream * MIX[0]))[:, None] + places[None])
    return ((bits >> 40 & 0xFFFFFF).to(torch.float32) + 0.5) * 2.0**-24


def normal(keys: Tensor, count: int, stream: int = 0) -> Tensor:
    """Return `count` standard normal numbers for each key, of shape (batch, count), float32 (Box & Muller 1958)."""
    half = (count + 1) // 2
    both = uniform(keys, 2 * half, stream)
    radius, angle = torch.sqrt(-2.0 * torch.log(both[:, :half])), 2.0 * math.pi * both[:, half:]
    return torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)[:, :count]


def _wrapped(value: int) -> int:
    """Return a whole number as the signed 64-bit one that it overflows to."""
    return (value + 2**63) % 2**64 - 2**63


def _mixed(value: Tensor) -> Tensor:
    """Return SplitMix64's finaliser; shifts are made logical by masking the sign that an arithmetic one copies."""
    value = (value ^ (value >> 30 & 0x3FFFFFFFF)) * MIX[0]
    value = (value ^ (value >> 27 & 0x1FFFFFFFFF)) * MIX[1]
    return value ^ (value >> 31 & 0x1FFFFFFFF)
