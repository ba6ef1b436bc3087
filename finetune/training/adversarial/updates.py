"""The rows of one generator update: all micro-batches of its discriminator steps together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from finetune.training.dealing import Dealer

Batch = dict[str, Any]


class Microbatches(TorchDataset):
    """Collated micro-batches, asked for by the lists of their rows."""

    def __init__(self, rows: Any, collate: Callable[[list[dict[str, Any]]], Batch]) -> None:
        self.rows, self.collate = rows, collate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, piece: list[int]) -> Batch:
        return self.collate(self.rows.__getitems__(piece))


@dataclass
class Updates(Sampler[list[list[int]]]):
    """Deals `size` micro-batches at a time, fewer at the end of an epoch."""

    dealer: Dealer
    size: int

    def __iter__(self) -> Iterator[list[list[int]]]:
        pieces = list(self.dealer)
        yield from (pieces[start : start + self.size] for start in range(0, len(pieces), self.size))

    def __len__(self) -> int:
        return -(-len(self.dealer) // self.size)


@dataclass
class Group:
    """The micro-batches of one discriminator step."""

    batches: list[Batch]
    carried: list[Any]  # their row ids, and whether they are stand-ins
    weight: float  # of all processes together


def grouped(batches: list[Batch], carried: list[Any], weights: list[float], size: int) -> list[Group]:
    """Return the micro-batches of an update in groups of `size`, the last one perhaps smaller."""
    cuts = [slice(start, start + size) for start in range(0, len(batches), size)]
    return [Group(batches[cut], carried[cut], sum(weights[cut])) for cut in cuts]
