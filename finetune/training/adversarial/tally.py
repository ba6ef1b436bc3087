"""How the discriminator has judged since the last time it was told."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune.training import ranks
from finetune.training.adversarial.game import Judged

NAMES = ("d_loss", "d_accuracy_real", "d_accuracy_fake", "d_accuracy_pairs", "critic_gap")


class Tally:
    """Sums that stay on the device until they are logged."""

    def __init__(self, device: torch.device) -> None:
        self.sums: Tensor = torch.zeros(len(NAMES) + 1, device=device)  # the last is the number of rows

    def add(self, judged: Judged, stand_in: bool, rows: int) -> None:
        """Add a micro-batch; a stand-in weighs nothing."""
        if not stand_in:
            parts = (judged.loss.detach(), judged.real_right, judged.fake_right, judged.pair_right, judged.gap)
            self.sums += torch.stack([*(each.float() for each in parts), torch.full_like(self.sums[0], rows)])

    def taken(self, names: tuple[str, ...]) -> dict[str, float]:
        """Return the means over the rows of all processes, of `names` and of the loss, and start anew."""
        *sums, rows = ranks.summed(self.sums, self.sums.device).tolist()
        self.sums.zero_()
        return {
            name: total / max(rows, 1) for name, total in zip(NAMES, sums, strict=True) if name in ("d_loss", *names)
        }
