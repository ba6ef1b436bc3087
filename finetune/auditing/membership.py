"""Whether a row can be told to have been trained on, by its loss.

Yeom et al. 2018 (arXiv:1709.01604): a row is taken for a member when its loss is low. Held against what the untrained
model says of the same row, hard rows and easy ones are told from seen and unseen ones (Carlini et al. 2022,
arXiv:2112.03570, section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.task import Score
    from finetune.training.trainer import Trainer

MOST = 1000  # inputs of each side
FALSE_ALARMS = 0.01  # most of the rows that were not trained on that may be taken for some that were, a share

Documents = tuple[np.ndarray, np.ndarray]  # of the members and of the others: the number of each input's row


def losses(trainer: Trainer, inputs: Dataset) -> np.ndarray:
    """Return the loss of each input alone, in nats a target; what a loss draws is the same at every call."""
    task, size = trainer.task, trainer.args.per_device_eval_batch_size

    def ask(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        total, _ = task.loss(model, batch)
        return {"loss": (total / task.weight(batch).clamp(min=1e-9)).detach().double().reshape(1)}

    trainer.args.per_device_eval_batch_size = 1
    try:
        return np.asarray(trainer.answers(inputs, ask)["loss"])
    finally:
        trainer.args.per_device_eval_batch_size = size


def auc(
    members: np.ndarray, others: np.ndarray, resamples: int, seed: int, documents: Documents | None = None
) -> Score:
    """Return the area under the curve of telling members by a low value, with its 95 % bootstrap interval.

    0.5 is chance. Both sides are drawn again, each from itself; inputs of one document are alike, and are drawn
    together (without `documents` each input is one).
    """
    from finetune.evaluation.bootstrap import interval
    from finetune.task import Score

    random = np.random.default_rng([seed, 4245])
    of_members, of_others = documents or (np.arange(len(members)), np.arange(len(others)))
    sides = (members, _numbered(of_members)), (others, _numbered(of_others))
    drawn = [_area(*(_drawn(*side, random) for side in sides)) for _ in range(resamples)]
    return Score(_area(members, others), *interval([np.array(drawn)] if drawn else []), n=len(members) + len(others))


def caught(members: np.ndarray, others: np.ndarray) -> float:
    """Return the share of the members that are told where at most FALSE_ALARMS of the others are taken for members."""
    allowed = int(FALSE_ALARMS * len(others) + 1e-9)
    return float((members < np.sort(others)[allowed]).mean())


def attacks(
    members: np.ndarray,
    others: np.ndarray,
    before: tuple[np.ndarray, np.ndarray] | None,
    resamples: int,
    seed: int,
    documents: Documents | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the attacks by name, and the controls that should be at chance.

    Args:
        members, others: losses of rows that were trained on, and of rows that were not.
        before: the same of the model before it was trained, where that is known.
        resamples, seed: of the bootstrap.
        documents: whose inputs they are, as of `auc`.
    """
    rows = documents or (np.arange(len(members)), np.arange(len(others)))

    def told(one: np.ndarray, other: np.ndarray, of: Documents = rows) -> dict[str, Any]:
        score = auc(one, other, resamples, seed, of)
        return {"auc": score.value, "low": score.low, "high": score.high, "caught": caught(one, other)}

    found = {"loss": told(members, others)}
    if before is not None:
        found["loss against the untrained model"] = told(members - before[0], others - before[1])
        found["control: the untrained model"] = told(*before)
    numbers = _numbered(rows[1])
    order = np.random.default_rng([seed, 4246]).permutation(numbers.max() + 1)
    one, other = (np.concatenate([np.flatnonzero(numbers == each) for each in order[part::2]]) for part in (0, 1))
    found["control: held-out against held-out"] = told(others[one], others[other], (numbers[one], numbers[other]))
    return found


def _numbered(documents: np.ndarray) -> np.ndarray:
    """Return the documents of inputs as numbers from 0; a lone document says nothing of others: each input is one."""
    numbers = np.unique(documents, return_inverse=True)[1]
    return np.asarray(numbers if numbers.max() else np.arange(len(numbers)))


def _drawn(values: np.ndarray, documents: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the values of as many documents as there are, drawn with replacement."""
    count = documents.max() + 1
    times = np.bincount(random.integers(0, count, count), minlength=count)
    return np.repeat(values, times[documents])


def _area(members: np.ndarray, others: np.ndarray) -> float:
    """Return the chance that a member's value is below another's, ties half (Mann & Whitney 1947)."""
    order: Callable[..., np.ndarray] = np.sort(others).searchsorted
    above = len(others) - order(members, side="right")
    level = order(members, side="right") - order(members, side="left")
    return float((above + level / 2).mean() / len(others))
