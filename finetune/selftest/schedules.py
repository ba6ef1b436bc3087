"""The formulas of learning rate schedules, written down a second time, to hold the optimiser's rates against."""

from __future__ import annotations

import math
from typing import Any


def share(kind: str, step: int, steps: int, warmup: int, rate: float, options: dict[str, Any]) -> float | None:
    """Return the share of the learning rate at which a step is taken; None for a schedule without a formula here.

    Args:
        kind: the name of the schedule, as of `train.lr_scheduler_type`.
        step: from 0.
        steps, warmup: of the whole run; of them, those in which the rate rises linearly from 0.
        rate: the learning rate that the recipe names.
        options: of the schedule, as of `train.lr_scheduler_kwargs`.
    """
    if kind == "constant":
        return 1.0
    rising = step / max(1, warmup) if step < warmup else None
    done = (step - warmup) / max(1, steps - warmup)
    if kind == "constant_with_warmup":
        return 1.0 if rising is None else rising
    if kind == "linear":
        return max(0.0, 1 - done) if rising is None else rising
    if kind == "cosine":
        cycles = float(options.get("num_cycles", 0.5))
        return max(0.0, 0.5 * (1 + math.cos(2 * math.pi * cycles * done))) if rising is None else rising
    if kind == "cosine_with_min_lr":
        least = float(options["min_lr"]) / rate if "min_lr" in options else float(options["min_lr_rate"])
        cycles = float(options.get("num_cycles", 0.5))
        falling = 0.5 * (1 + math.cos(2 * math.pi * cycles * done)) * (1 - least) + least
        return max(0.0, falling) if rising is None else rising
    if kind == "polynomial":
        end, power = float(options.get("lr_end", 1e-7)), float(options.get("power", 1.0))
        return ((rate - end) * (1 - done) ** power + end) / rate if rising is None else rising
    if kind == "inverse_sqrt":
        timescale = options.get("timescale") or warmup or 10_000
        shift = timescale - warmup
        return 1.0 / math.sqrt((step + shift) / timescale) if rising is None else rising
    return None
