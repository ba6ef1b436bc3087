"""Two sets of weights, held against each other by name."""

from __future__ import annotations

import torch


def assert_same_weights(given: dict, expected: dict, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    assert given.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(given[name], tensor, rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}")
