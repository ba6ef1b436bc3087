"""Which rows go into which batch: the same optimiser steps whatever the number of processes and micro-batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

if TYPE_CHECKING:
    from datasets import Dataset
    from datasets import IterableDataset as Stream

NO_ROW = -1  # the index of a row that is there for its shape alone, and weighs nothing


class Indexed(TorchDataset):
    """Inputs that know their place: adds "index", which is NO_ROW for a stand-in (asked for as ~row)."""

    def __init__(self, inputs: Dataset) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        rows = self.inputs.__getitems__([index if index >= 0 else ~index for index in indices])
        return [{**row, "index": max(index, NO_ROW)} for row, index in zip(rows, indices, strict=True)]


@dataclass
class Dealer(Sampler[list[int]]):
    """Deals every row of an epoch out once: this process's micro-batches, in order.

    The order is a function of (seed, epoch) alone, and micro-batch k of process r is the (k * processes + r)th piece of
    it, so an optimiser step sees the same rows on any number of processes and with any accumulation that make the same
    batch. Where the last rows do not suffice for all processes, a stand-in (~row) keeps them in step; its weight is 0.
    """

    rows: int
    batch: int  # rows a micro-batch
    seed: int
    strategy: str = "random"  # or "sequential", "group_by_length"
    lengths: Sequence[int] | None = None  # tokens a row, for group_by_length
    group: int = 1  # rows an optimiser step: what group_by_length keeps together
    process: int = 0
    processes: int = 1
    drop_last: bool = False
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is dealt next."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """Return the rows in the order of this epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.strategy == "sequential":
            return list(range(self.rows))
        if self.strategy == "group_by_length":
            return self._grouped(generator)
        return torch.randperm(self.rows, generator=generator).tolist()

    def _grouped(self, generator: torch.Generator) -> list[int]:
        """Return rows of like length together, the steps in random order; the longest come first, the odd ones last.

        transformers takes the steps of 50 batches from long to short. Where length tells something of the label, as it
        does of spam, that is a long run of one label after the other, and the model forgets each in turn.
        """
        order = get_length_grouped_indices(list(self.lengths or ()), self.group, generator=generator)
        steps = [order[start : start + self.group] for start in range(0, len(order), self.group)]
        last = [steps.pop()] if len(steps[-1]) < self.group else []
        longest, others = steps[:1], steps[1:]
        shuffled = [others[place] for place in torch.randperm(len(others), generator=generator).tolist()]
        return list(itertools.chain(*longest, *shuffled, *last))

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order()
        for number in range(len(self)):
            start = (number * self.processes + self.process) * self.batch
            yield order[start : start + self.batch] or [~order[0]]

    def __len__(self) -> int:
        taken = self.batch * self.processes
        return self.rows // taken if self.drop_last else -(-self.rows // taken)


class EndlessStream(IterableDataset):
    """A stream that starts over, with the next epoch's shuffle, when it ends; this process's share of it.

    One long epoch for the trainer: what is skipped at a resume is then exact in any epoch, and processes whose shares
    differ in length stay in step.
    """

    def __init__(self, stream: Stream, process: int, processes: int) -> None:
        from datasets.distributed import split_dataset_by_node

        self.stream = split_dataset_by_node(stream, rank=process, world_size=processes) if processes > 1 else stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for epoch in itertools.count():
            self.stream.set_epoch(epoch)
            found = False
            for row in self.stream:
                found = True
                yield row
            if not found:
                return


def batches_by_length(lengths: Sequence[int], batch: int, process: int, processes: int) -> list[list[int]]:
    """Return this process's batches of rows of like length, longest first; equally many on every process.

    Each row is in one batch of one process; a batch of stand-ins (~row) makes up for a process that has one fewer.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    pieces = [order[start : start + batch] for start in range(0, len(order), batch)]
    while len(pieces) % processes:
        pieces.append([~order[-1]])
    return pieces[process::processes]


def length_of_labels(lengths: Sequence[int], labels: Sequence[int]) -> tuple[float, dict[int, float]]:
    """Return the share of the lengths' variance that labels explain (η², from 0 to 1), and each label's median length.

    Where it is large, steps of rows of like length are steps of one label.
    """
    import numpy as np

    values, owner = np.asarray(lengths, dtype=float), np.asarray(labels)
    groups = {int(label): values[owner == label] for label in np.unique(owner)}
    between = sum(len(each) * (each.mean() - values.mean()) ** 2 for each in groups.values())
    total = ((values - values.mean()) ** 2).sum()
    return float(between / total) if total else 0.0, {name: float(np.median(each)) for name, each in groups.items()}
