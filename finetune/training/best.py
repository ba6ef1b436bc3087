"""Which of two checkpoints with the same score is the better one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import TrainerState, TrainingArguments


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
