"""A teacher beside the model that is trained: whole on every process, asked without gradients, never changed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.task import Task


class Teacher:
    """What a task's `load_teacher` returned, ready to be asked.

    Args:
        task: whose `logits` are what it is asked for.
        model: is put on `device`, into evaluation mode, and frozen.
    """

    def __init__(self, task: Task, model: PreTrainedModel, device: torch.device) -> None:
        self.task = task
        self.digest = _digest(model)
        self.model: Any = model.requires_grad_(False).eval().to(device)

    def added(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with the teacher's logits under "teacher"."""
        with torch.no_grad():
            return {**batch, "teacher": self.task.logits(self.model, batch)}


def _digest(model: PreTrainedModel) -> str:
    """Return a digest of every weight, by name: a resumed run must have the same teacher."""
    found = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if isinstance(weight, Tensor):
            found.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            found.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return found.hexdigest()
