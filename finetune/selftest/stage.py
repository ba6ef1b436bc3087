"""What checks share: the recipe's rows, trainings that are held against others, and how a check ends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.selftest.observing import Observed, observe
from finetune.selftest.shrinking import Small

if TYPE_CHECKING:
    from finetune.preparation import Prepared

ROUNDING = 1e-4  # relative: sums of fp32 in another order
STEPS = 3  # between two checkpoints


class LeftOut(Exception):
    """A check has nothing to check here; says why."""


@dataclass(frozen=True)
class Found:
    """What a check measured: good where the difference is no more than the tolerance."""

    difference: float
    tolerance: float
    said: str


class Stage:
    """What several checks share: prepared rows, and trainings that are held against others."""

    def __init__(self, small: Small, folder: Path) -> None:
        self.small, self.folder = small, folder

    def prepared(self, which: str) -> Prepared:
        """Return the rows, inputs and tokenizer of the recipe, as it is ("own") or without what draws ("exact")."""
        from finetune.preparation import prepare
        from finetune.recipe import Recipe

        return prepare(Recipe.read(self.small.write(which, self.folder / f"{which}.yaml")))

    @cached_property
    def exact(self) -> Prepared:
        """The recipe with plain SGD and no dropout."""
        return self.prepared("exact")

    @cached_property
    def own(self) -> Prepared:
        """The recipe with its own optimiser, schedule and dropout."""
        return self.prepared("own")

    @cached_property
    def whole(self) -> Observed:
        """Steps of one batch each."""
        return observe(self.exact, output_dir=str(self.folder / "whole"))

    @cached_property
    def unbroken(self) -> Observed:
        """The recipe's own steps, with checkpoints on the way."""
        return observe(self.own, output_dir=str(self.folder / "unbroken"), save_strategy="steps", save_steps=STEPS)
