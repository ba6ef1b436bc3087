from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from finetune.models import noise

MASK = 2**64 - 1


def splitmix(value: int) -> int:
    """SplitMix64's finaliser in Python's own whole numbers, as its authors print it."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_the_hash_is_splitmix64():
    values = torch.tensor([0, 1, -1, 2**62, -(2**63), 123456789], dtype=torch.int64)

    given, expected = noise._mixed(values).tolist(), [splitmix(each & MASK) for each in values.tolist()]
    assert [each & MASK for each in given] == expected


def test_the_numbers_of_a_row_depend_on_neither_batch_nor_order():
    rows = torch.arange(100)
    whole = noise.normal(noise.keys(13, 7, rows), 9)
    order = torch.randperm(100)

    assert torch.equal(noise.normal(noise.keys(13, 7, rows[order]), 9), whole[order])
    assert torch.equal(noise.normal(noise.keys(13, 7, rows[40:41]), 9), whole[40:41])


def test_seeds_steps_rows_and_streams_give_other_numbers():
    rows = torch.arange(50)
    drawn = [noise.uniform(noise.keys(seed, step, rows), 20, stream).flatten().numpy()
             for seed in (0, 1) for step in (-1, 0, 1) for stream in (0, 1)]  # fmt: skip

    assert len(np.unique(np.concatenate(drawn))) > 0.999 * 12 * 1000
    assert np.abs(np.corrcoef(np.stack(drawn)) - np.eye(12)).max() < 0.12


def test_the_numbers_are_uniform_and_normal():
    keys = noise.keys(5, 3, torch.arange(2000))
    uniform, normal = noise.uniform(keys, 16), noise.normal(keys, 15)

    assert uniform.shape == (2000, 16)
    assert normal.shape == (2000, 15)
    assert float(uniform.min()) > 0
    assert float(uniform.max()) < 1
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 1e-3
    between = np.corrcoef(normal.numpy().T) - np.eye(15)
    assert np.abs(between).max() < 0.1


def test_streams_of_any_number_are_independent():
    keys = noise.keys(5, 3, torch.arange(200))
    drawn = [noise.uniform(keys, 10, stream).flatten().numpy() for stream in (0, 1, 2, 12, 1000)]

    assert np.abs(np.corrcoef(np.stack(drawn)) - np.eye(5)).max() < 0.1
