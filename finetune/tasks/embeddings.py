"""What a classifier's last layer sees of its inputs: the space in which rows are near to each other or far."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def seen_by_head(model: Any, logits_of: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Return (embeddings, logits): what goes into the linear layer that is called last, and what comes out.

    Of a model that answers at every token (GPT-2), the embedding is that of the token whose answer was taken.

    Args:
        model: any classifier, wrapped or with an adapter.
        logits_of: calls it once and returns its logits, of shape (batch, classes).

    Returns:
        float32, of shape (batch, width) and (batch, classes).

    Raises:
        UserError: the last linear layer is not the one of the classes.
    """
    from torch import nn

    last: list[tuple[Tensor, Tensor]] = []

    def keep(_: Any, given: tuple[Tensor, ...], answer: Tensor) -> None:
        last[:] = [(given[0], answer)]

    hooks = [each.register_forward_hook(keep) for each in model.modules() if isinstance(each, nn.Linear)]
    try:
        logits = logits_of()
    finally:
        for hook in hooks:
            hook.remove()
    if not last or last[0][1].shape[-1] != logits.shape[-1]:
        raise UserError(f"model: {type(model).__name__} has no last linear layer whose inputs could be compared.")
    embeddings, answers = (each.float() for each in last[0])
    if embeddings.ndim == 3:
        taken = (answers - logits[:, None].float()).abs().sum(dim=2).argmin(dim=1)
        embeddings = embeddings[range(len(taken)), taken]
    return embeddings.flatten(1), logits.float()
