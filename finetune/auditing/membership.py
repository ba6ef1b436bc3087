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
FALSE_ALARMS = 0.01  # share of the rows that were not trained on, at which those that were are counted


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


def auc(members: np.ndarray, others: np.ndarray, resamples: int, seed: int) -> Score:
    """Return the area under the curve of telling members by a low value, with its 95 % bootstrap interval.

    0.5 is chance. Both sides are drawn again, each from itself.
    """
    from finetune.evaluation.bootstrap import interval
    from finetune.task import Score

    random = np.random.default_rng([seed, 4245])
    drawn = [_area(random.choice(members, len(members)), random.choice(others, len(others))) for _ in range(resamples)]
    return Score(_area(members, others), *interval([np.array(drawn)] if drawn else []), n=len(members) + len(others))


def caught(members: np.ndarray, others: np.ndarray) -> float:
    """Return the share of the members that are told where FALSE_ALARMS of the others are taken for members."""
    return float((members < np.quantile(others, FALSE_ALARMS)).mean())


def attacks(
    members: np.ndarray, others: np.ndarray, before: tuple[np.ndarray, np.ndarray] | None, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return the attacks by name, and the controls that should be at chance.

    Args:
        members, others: losses of rows that were trained on, and of rows that were not.
        before: the same of the model before it was trained, where that is known.
        resamples, seed: of the bootstrap.
    """

    def told(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
        score = auc(one, other, resamples, seed)
        return {"auc": score.value, "low": score.low, "high": score.high, "caught": caught(one, other)}

    half = np.random.default_rng([seed, 4246]).permutation(len(others))
    found = {"loss": told(members, others)}
    if before is not None:
        found["loss against the untrained model"] = told(members - before[0], others - before[1])
        found["control: the untrained model"] = told(*before)
    found["control: held-out against held-out"] = told(others[half[::2]], others[half[1::2]])
    return found


def _area(members: np.ndarray, others: np.ndarray) -> float:
    """Return the chance that a member's value is below another's, ties half (Mann & Whitney 1947)."""
    order: Callable[..., np.ndarray] = np.sort(others).searchsorted
    above = len(others) - order(members, side="right")
    level = order(members, side="right") - order(members, side="left")
    return float((above + level / 2).mean() / len(others))
