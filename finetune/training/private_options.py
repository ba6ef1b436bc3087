"""The options of private training, and what it promises: light, for a recipe is refused without torch."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

from finetune.errors import UserError


@dataclass(frozen=True)
class DpOptions:
    """DP-SGD (Abadi et al. 2016, arXiv:1607.00133): every row's gradient is cut, and noise is added to their sum."""

    epsilon: float | None = None  # to be spent over the whole run; the noise follows from it
    noise_multiplier: float | None = None  # instead of epsilon: the noise's deviation, in units of max_grad_norm
    delta: float = 1e-5  # chance that epsilon does not hold; well below one over the number of rows
    max_grad_norm: float = 1.0  # L2 norm that the gradient of one row's mean loss is cut to

    def __post_init__(self) -> None:
        if self.epsilon is not None and not 0 < self.epsilon < math.inf:
            raise UserError(f"train.dp.epsilon is {self.epsilon}; give a number above 0, such as 3.")
        if self.noise_multiplier is not None and not 0 <= self.noise_multiplier < math.inf:
            raise UserError(f"train.dp.noise_multiplier is {self.noise_multiplier}; give 0 or more, such as 1.")
        if not 0 < self.delta < 1:
            raise UserError(f"train.dp.delta is {self.delta}; give a chance between 0 and 1, such as 1e-5.")
        if not self.max_grad_norm > 0 or (math.isinf(self.max_grad_norm) and self.noise_multiplier != 0):
            raise UserError(f"train.dp.max_grad_norm is {self.max_grad_norm}; give a number above 0, such as 1.")


def noise_for(options: DpOptions, rate: float, steps: int) -> float:
    """Return the noise multiplier of a run: as given, or the least that spends no more than epsilon.

    Args:
        options: of the recipe.
        rate: chance of a row to be in a step.
        steps: of the whole run.
    """
    if options.noise_multiplier is not None:
        return options.noise_multiplier
    from opacus.accountants.utils import get_noise_multiplier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of orders that would make the bound tighter
        try:
            return float(
                get_noise_multiplier(
                    target_epsilon=options.epsilon, target_delta=options.delta, sample_rate=rate, steps=steps,
                    accountant="rdp", epsilon_tolerance=min(0.01, 0.01 * float(options.epsilon or 1)),
                )
            )  # fmt: skip
        except ValueError as error:
            raise UserError(f"train.dp.epsilon: {options.epsilon} cannot be kept in {steps} steps ({error}).") from None


def spent(noise: float, rate: float, steps: int, delta: float) -> float | None:
    """Return the epsilon of so many steps with Poisson sampling, by Rényi DP (Mironov et al. 2019, arXiv:1908.10530).

    None where there is no noise, and no promise. Neighbours differ by one row that is there or not.
    """
    if noise == 0:
        return None
    if steps == 0:
        return 0.0
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return float(accountant.get_epsilon(delta))


def told(facts: dict[str, Any]) -> str:
    """Return what a private run promises, in one line."""
    most = "∞" if facts["max_grad_norm"] is None else f"{facts['max_grad_norm']:g}"
    epsilon = "nothing (no noise)" if facts["epsilon"] is None else f"ε = {facts['epsilon']:.3g}"
    return (
        f"{epsilon} at δ = {facts['delta']:g}: noise {facts['noise_multiplier']:.3g} × {most}, "
        f"{facts['steps']:,} steps, each row in a step with chance {facts['sample_rate']:.3g}"
    )
