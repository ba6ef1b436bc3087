"""What is found out about a model: scores, and what looking at it as a whole tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Score:
    """One number with its 95 % bootstrap interval (None where it was not asked for) and its sample size."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0


Scores = dict[str, Score]


@dataclass(frozen=True)
class Picture:
    """An image for the report, with the words below it."""

    pixels: np.ndarray  # uint8, shape (height, width, 3)
    caption: str


@dataclass(frozen=True)
class Examination:
    """What looking at a trained model as a whole tells, beyond the answers to single inputs."""

    scores: dict[str, Scores] = field(default_factory=dict)  # by split; they join those of `score`
    baselines: dict[str, Scores] = field(default_factory=dict)  # by name: floors and controls
    pictures: dict[str, Picture] = field(default_factory=dict)  # by name: samples/NAME.png
    facts: dict[str, Any] = field(default_factory=dict)  # plain values for examination.json: n, extractor, seconds
    alarms: tuple[str, ...] = ()  # sentences that the report begins with and the command prints

    def joined(self, other: Examination) -> Examination:
        """Return what two looks at one model tell, the other's after this one's."""
        splits = dict.fromkeys((*self.scores, *other.scores))
        return Examination(
            {split: {**self.scores.get(split, {}), **other.scores.get(split, {})} for split in splits},
            self.baselines | other.baselines,
            self.pictures | other.pictures,
            self.facts | other.facts,
            self.alarms + other.alarms,
        )
