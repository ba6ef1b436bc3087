"""Which of two checkpoints with the same score is the better one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from finetune.errors import CheckFailed, UserError

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments


def check_best(name: str, metrics: dict[str, float], step: int) -> None:
    """Raise UserError when the score that picks the best checkpoint is not among these, CheckFailed when it is NaN."""
    if name not in metrics:
        raise UserError(
            f"train.metric_for_best_model: {name} is not a score here; known: {', '.join(sorted(metrics))}."
        )
    if math.isnan(metrics[name]):
        raise CheckFailed(f"step {step}: {name}, which picks the best checkpoint, is not a number.")


def likelier(metrics: dict[str, float], state: TrainerState, args: TrainingArguments) -> bool:
    """Say whether this evaluation ties with the best one and gives its targets more probability.

    Scores that count (F1, accuracy) stand still while a model still says one class for all; the first of those
    checkpoints is the worst.
    """
    name = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
    if metrics.get(name) != state.best_metric:
        return False
    kept = [row["eval_nll"] for row in state.log_history if row["step"] == state.best_global_step and "eval_nll" in row]
    return bool(kept) and metrics.get("eval_nll", math.inf) < kept[-1]
