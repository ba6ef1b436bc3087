"""Which tokens of a text are hidden, and predictions at those places alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.task import Batch

UNITS, ACTIONS, WORDS = 0, 1, 2  # streams of a row's random numbers
MASKED, REPLACED = 0.8, 0.9  # below the first a chosen token becomes the mask, below the second any token
FREE = -1  # the unit of a token that is never chosen: special tokens and padding


@dataclass(frozen=True)
class Masking:
    """How tokens are hidden (Devlin et al. 2019, arXiv:1810.04805, section 3.1).

    What is chosen is a function of the batch's keys alone, and so of the row: never of its neighbours or its padding.
    """

    probability: float  # of each unit, a token or a whole word
    mask_id: int
    vocabulary: int  # its size

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (ids with chosen tokens hidden, targets), each (batch, length); -100 is no target.

        Of the chosen tokens 80 % become the mask, 10 % any token of the vocabulary, 10 % stay as they are. A row of
        which nothing would be chosen gives its unit with the lowest draw.

        Args:
            batch: `input_ids` and `units`, the number of each token's unit in its row (FREE: none), both of shape
                (batch, length); `keys`, shape (batch,).
        """
        from finetune.models.noise import uniform

        ids, units, keys = batch["input_ids"], batch["units"], batch["keys"]
        length = ids.shape[1]
        draw = uniform(keys, length, UNITS).gather(1, units.clamp(min=0)).masked_fill(units == FREE, 2.0)
        lowest = draw.amin(dim=1, keepdim=True)
        chosen = (draw < lowest.clamp(min=self.probability)) | ((draw == lowest) & (units != FREE))
        action = uniform(keys, length, ACTIONS)
        other = (uniform(keys, length, WORDS) * self.vocabulary).long()
        hidden = ids.masked_fill(chosen & (action < MASKED), self.mask_id)
        hidden = hidden.where(~(chosen & (action >= MASKED) & (action < REPLACED)), other)
        return hidden, ids.masked_fill(~chosen, -100)


@contextmanager
def predicting_at(model: Any, places: Tensor) -> Iterator[bool]:
    """Within, let the model's head see the chosen places alone; its logits are then (1, places, vocabulary).

    A head reads every place by itself, and costs more than a small encoder: 15 % of the places need it. Gives False
    where the model has no encoder of its own name to stop at, and its logits are those of every place.

    Args:
        model: with a head for masked tokens, an adapter or a wrapper around it or none.
        places: bool, shape (batch, length).
    """
    network = inner(model)
    encoder = network.base_model
    if encoder is network:
        yield False
        return

    def narrow(_module: Any, _given: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[places][None]
        return output

    handle = encoder.register_forward_hook(narrow)
    try:
        yield True
    finally:
        handle.remove()


def inner(model: Any) -> Any:
    """Return the transformers model inside what processes and adapters wrapped around it."""
    from accelerate.utils import extract_model_from_parallel

    model = extract_model_from_parallel(model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model
