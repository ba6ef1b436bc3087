"""A trainer that takes no step in which a number is not finite: it stops, or leaves a few of them out.

Overridden: train and _save_checkpoint (weights that are no longer finite end it, and are never saved), _get_grad_norm
(the last look before a step).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finetune.errors import UserError
from finetune.training import nonfinite, ranks
from finetune.training.options import TrainOptions
from finetune.training.saved_state import trained_state
from finetune.training.stopping import Stoppable


@dataclass(frozen=True)
class Carried:
    """What a micro-batch carries for the trainer and not for the model."""

    row_ids: list[str]
    stand_in: bool  # it keeps processes in step, and weighs nothing


class Guarded(Stoppable):
    """Holds every step's losses and gradient norm against what is finite, on all processes together."""

    args: TrainOptions

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skipped = nonfinite.Skipped(self.args)
        self._carried: list[Carried] = []
        self._losses: list[Tensor] = []
        self._loss_before = torch.zeros(())  # what the steps since the last log have summed to
        if self.args.nan_budget and self.is_deepspeed_enabled:
            raise UserError("train.nan_budget: DeepSpeed steps before a step can be left out. Leave it out.")

    @property
    def privacy(self) -> dict[str, Any] | None:
        """What is promised of the training rows after the steps so far; None where training is not private."""
        return None

    @property
    def left(self) -> str:
        """What of the step under way would not be taken, were it to end here."""
        return nonfinite.WHOLE

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """See `Stoppable.train`; CheckFailed when the last step's weights are no longer finite."""
        nonfinite.clear(self.args)
        result = super().train(*args, **kwargs)
        self._refuse_broken_weights()  # no further loss would show it
        return result

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._refuse_broken_weights()
        super()._save_checkpoint(model, trial)

    def _weights(self) -> dict[str, Iterable[Tensor]]:
        """Return what a checkpoint holds of the networks, by what to call it."""
        return {"the weights": trained_state(self._network).values()}

    def _refuse_broken_weights(self) -> None:
        """Stop, naming the rows of the last step, where it has left a weight that is no longer finite."""
        for name, weights in self._weights().items():
            # of a parameter that ZeRO-3 has split, each process has its share, and nothing else
            shares = (getattr(each, "ds_tensor", each).detach() for each in weights)
            if ranks.any_of(not all(bool(torch.isfinite(each).all()) for each in shares), self.args.device):
                rows = [each.row_ids for each in self._carried if not each.stand_in]
                what = f"{name} are no longer finite numbers"
                nonfinite.report(self.args, self.state.global_step, what, rows, self.skipped, nonfinite.TAKEN)

    def _go_on(self) -> None:
        self.skipped.go_on((self._part or {}).get("left_out", []))
        super()._go_on()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._stop_unless_finite(norm)
        return norm

    def _stop_unless_finite(self, norm: Any) -> None:
        broken = [not math.isfinite(value) for value in torch.stack(self._losses).tolist()]
        # A gradient scaler meets infinite gradients by design, and skips the step itself.
        gradient = norm is not None and self.accelerator.scaler is None and not math.isfinite(float(norm))
        found = ranks.summed(torch.tensor([float(any(broken)), float(gradient)]), self.args.device).tolist()
        if any(found):  # rows of every process are at fault only where no single loss is
            rows = [each.row_ids for each, bad in zip(self._carried, broken, strict=False) if bad or not found[0]]
            what = f"the {'loss' if found[0] else 'gradient'} is not a finite number"
            if self.skipped.is_full:
                # DeepSpeed has stepped by the time there is a norm, but for a step that it skips itself
                stepped = self.is_deepspeed_enabled and norm is not None
                taken = stepped and not self.accelerator.optimizer_step_was_skipped
                left = nonfinite.TAKEN if taken else self.left
                nonfinite.report(self.args, self.state.global_step + 1, what, rows, self.skipped, left)
            self.skipped.add(self.state.global_step + 1, what, rows)
            self._leave_out()

    def _leave_out(self) -> None:
        """Take this step's gradients and losses back: an optimiser passes over parameters without a gradient.

        The schedule goes on. A gradient scaler keeps the gradients, and passes over the step itself.
        """
        if self.accelerator.scaler is None:
            self.model.zero_grad(set_to_none=True)
        self._tr_loss = self._loss_before
        self._globalstep_last_logged += 1  # means are over the steps that were taken

    def _own_part(self) -> dict[str, Any]:
        return {**super()._own_part(), "left_out": self.skipped.steps}
