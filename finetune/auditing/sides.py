"""The two sides of an audit: inputs that were trained on, and inputs that were not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.auditing import exposure, membership
from finetune.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.recipe import Recipe
    from finetune.task import Processor
    from finetune.training.trainer import Trainer

LEAST_ROWS = 20  # of each side


@dataclass(frozen=True)
class Sides:
    """Inputs that were trained on, and inputs that were not."""

    members: Dataset
    others: Dataset
    split: str  # of the others

    @property
    def documents(self) -> membership.Documents:
        """The number of each input's document, on both sides.

        By `row_id`: of pairs of sentences `row` is the number of the pair.
        """
        return _numbered(self.members["row_id"][:]), _numbered(self.others["row_id"][:])

    def losses(self, trainer: Trainer) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of both under the trainer's model."""
        return membership.losses(trainer, self.members), membership.losses(trainer, self.others)


def sides_of(recipe: Recipe, processor: Processor, rows: Mapping[str, Dataset]) -> Sides:
    """Return inputs of training rows and of held-out ones: at most `membership.MOST` of each, drawn by the seed.

    A long text that would be packed is taken in pieces.
    """
    split = "test" if "test" in rows else "validation"
    task = exposure.unpacked(recipe.task)
    packs = task is not recipe.task
    random = np.random.default_rng([recipe.train.seed, 4247])
    inputs = {}
    for name in ("train", split):
        long = "window" if packs and task.kind != "chat" else recipe.data.on_long
        encoded = task.encode_held(_some(rows[name], random), processor, long).inputs
        inputs[name] = _some(encoded, random)
        if len(inputs[name]) < LEAST_ROWS:
            raise UserError(
                f"audit: {name} has {len(inputs[name])} inputs; {LEAST_ROWS} or more are needed to compare."
            )
        if task.targets not in inputs[name].column_names and task.columns().label is not None:
            raise UserError(f"data.{name}: the rows have no {task.columns().label!r}, so they have no loss.")
    return Sides(inputs["train"], inputs[split], split)


def held_out(recipe: Recipe, sides: Sides) -> dict[str, Any]:
    """Return what is to be known of the rows that were not trained on: whether they chose when training was over."""
    documents = [len(set(each.tolist())) for each in sides.documents]
    several = documents != [len(sides.members), len(sides.others)]
    told = {"held_out": sides.split, "held_out_chose": sides.split == "validation" and _is_chosen(recipe)}
    return told | ({"documents": dict(zip(("train", sides.split), documents, strict=True))} if several else {})


def _is_chosen(recipe: Recipe) -> bool:
    """Say whether validation rows choose the weights of a recipe's run, the end of its training or its rate."""
    from finetune.training.options import PLATEAUS, fitted_to

    train = fitted_to(recipe.train, True, recipe.task.best_score, recipe.task.best_is_greatest)
    watched = train.early_stopping_patience is not None or train.lr_scheduler_type in PLATEAUS
    return bool(train.load_best_model_at_end) or watched


def _numbered(names: Sequence[str]) -> np.ndarray:
    """Return the place of each name among them all, in the order in which they first come."""
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names])


def _some(rows: Dataset, random: np.random.Generator) -> Dataset:
    """Return at most `membership.MOST` rows, in their order."""
    return rows.select(np.sort(random.permutation(len(rows))[: membership.MOST]).tolist())
