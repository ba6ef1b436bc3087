"""Distillation: the targets, and the answers of a teacher beside them (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from finetune.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Hidden:
    """Learn what the teacher's layers hold too (TinyBERT: Jiao et al. 2020, arXiv:1909.10351, equation 8).

    Its layers lie at equal distances in the teacher's. Where the two are not equally wide, a linear layer leads from
    one to the other; it is trained with the student, and no part of what is saved.
    """

    weight: float = 1.0  # of the mean squared distance, which is added to the loss

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise UserError(f"task.distill.hidden.weight is {self.weight}; give a number above 0, or leave hidden out")


@dataclass(frozen=True)
class Distillation:
    """Learn from the answers of a teacher too: (1 - alpha) x loss on the targets + alpha x T² x divergence."""

    teacher: str  # a run, a folder, package://NAME/FOLDER or a Hub id; of the same labels and tokenizer
    temperature: float = 2.0  # T: divides the logits of both; above 1, what the teacher holds for unlikely counts more
    alpha: float = 0.5  # share of the teacher in the loss, 0 to 1
    revision: str | None = None  # of a teacher on the Hub: a commit, tag or branch
    hidden: Hidden | None = None  # match the layers too, in training alone; widths may differ
    alone: str | None = None  # the run of the same student without a teacher, to be held against on the same test rows

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise UserError(f"task.distill.alpha is {self.alpha}; it is a share and must lie between 0 and 1")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"task.distill.temperature is {self.temperature}; give a number above 0, such as 2")

    def blended(self, hard: Tensor, soft: Tensor) -> Tensor:
        """Return the loss of both: `hard` on the targets, `soft` (with its T²) on the teacher's answers; sums.

        Both are divided by the step's one weight afterwards, so the shares hold however rows fall into batches.
        """
        return (1 - self.alpha) * hard + self.alpha * soft


def divergence(
    student: Tensor, teacher: Tensor, temperature: float, problem: Literal["single", "multi", "regression"] = "single"
) -> Tensor:
    """Return how far the student's answers are from the teacher's, for each row, times T².

    The gradient of the divergence shrinks with 1/T²; the factor keeps its share of the loss as T changes (section 2).

    Args:
        student, teacher: logits, shape (..., classes): a row is whatever the last dimension is an answer for.
        temperature: T, divides the logits of both.
        problem: "single": Kullback-Leibler of the softmax; "multi": of each label's sigmoid, the mean over the labels;
            "regression": the squared error, whatever T is.

    Returns:
        Shape (...), in nats, never negative.
    """
    from torch.nn import functional as F

    if problem == "regression":
        return (student - teacher).square().mean(dim=-1)
    student, teacher = student / temperature, teacher / temperature
    if problem == "single":
        each = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    else:
        wanted = teacher.sigmoid()
        binary = F.binary_cross_entropy_with_logits
        each = (binary(student, wanted, reduction="none") - binary(teacher, wanted, reduction="none")).mean(dim=-1)
    return temperature**2 * each
