"""The recipe's `evaluate` section. Imports nothing heavy: a recipe is read and refused without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune.errors import UserError


@dataclass(frozen=True)
class EvaluateOptions:
    """How scores are computed, and what the run keeps to be compared with later."""

    resamples: int = 1000  # bootstrap resamples behind each 95 % interval; 0: no intervals
    precision: Literal["float32", "bfloat16"] = "float32"  # in which answers are computed
    baselines: bool = True  # score simple rivals on the same test rows
    reference_rows: int = 32  # rows kept with inputs and logits, to compare a reloaded model on
    reload: Literal["fresh", "same"] = "fresh"  # the process in which the saved run is loaded again and compared
    samples: int = 3  # generations shown in the report
    extractor: str | None = None  # run folder or Hub id of the image classifier in whose features images are compared
    inception: bool = False  # also FID and KID of generated images: pip install finetune[fid]
    generated: int = 2000  # images or texts made to be compared with the held-out ones, at most
    importance_samples: int = 200  # a row, behind the importance-weighted likelihood of a VAE
    outliers: str | list[str] | None = None  # rows of other kinds than a classifier knows: how well it tells them
    # By what a classifier tells that a row is new: a density of its training rows (vae, mahalanobis, knn), or its own
    # doubt (energy, softmax). It is kept with the run, and `predict` says it; outliers alone mean vae.
    novelty: Literal["vae", "mahalanobis", "knn", "energy", "softmax"] | None = None

    def __post_init__(self) -> None:
        leasts = {"resamples": 0, "reference_rows": 1, "samples": 0, "generated": 2, "importance_samples": 1}
        for name, least in leasts.items():
            if getattr(self, name) < least:
                raise UserError(f"evaluate.{name} is {getattr(self, name)}; give {least} or more.")
        if 0 < self.resamples < 100:
            raise UserError(
                f"evaluate.resamples is {self.resamples}: too few for a 95 % interval; give 0 or at least 100."
            )
