"""Replies that a model writes, and whether it ended them by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.tasks.templates import end_of_turn, refuse_special, rendered, special_tokens

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.tasks.conversations import Turn


def replies(
    model: PreTrainedModel, processor: PreTrainedTokenizerBase, prompts: Sequence[Tensor], options: Mapping[str, Any]
) -> tuple[list[str], Tensor]:
    """Return the text of each reply, without what ends it, and whether it was ended, bool of shape (n,).

    Prompts are padded on the left and their tokens counted from their own beginning, so that each is answered as it
    would be alone.
    """
    import torch

    from finetune.tasks.writing import written_ids

    longest = max(len(each) for each in prompts)
    ids = torch.full((len(prompts), longest), processor.pad_token_id, device=prompts[0].device)
    mask = torch.zeros_like(ids)
    for row, seen, prompt in zip(ids, mask, prompts, strict=True):
        row[longest - len(prompt) :] = prompt
        seen[longest - len(prompt) :] = 1
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
    ends = {end_of_turn(processor), processor.eos_token_id}
    texts, stopped = [], []
    for row in written_ids(model, given, options).tolist():
        size = next((place for place, one in enumerate(row) if one in ends), len(row))
        texts.append(str(processor.decode(row[:size], skip_special_tokens=True)).strip())
        stopped.append(size < len(row))
    return texts, torch.tensor(stopped, device=ids.device)


def answered(
    model: PreTrainedModel,
    processor: PreTrainedTokenizerBase,
    asked: Sequence[list[Turn]],
    row_ids: Sequence[str],
    options: Mapping[str, Any],
    size: int,
) -> list[str]:
    """Return a reply to each conversation, `size` at a time; one that ends with a reply is answered without it.

    Raises:
        UserError: a conversation and the new tokens are more than the model can read.
    """
    import torch

    from finetune.loading import context_length

    special = special_tokens(processor)
    limit, prompts = context_length(model.config), []
    for turns, row_id in zip(asked, row_ids, strict=True):
        open_turns = turns[:-1] if turns[-1]["role"] == "assistant" else turns
        refuse_special(open_turns, special, row_id)
        text = rendered(processor, open_turns, True, row_id)
        ids = processor(text, add_special_tokens=False, verbose=False)["input_ids"]
        if limit and len(ids) + options["max_new_tokens"] > limit:
            raise UserError(
                f"{row_id}: {len(ids)} tokens and max_new_tokens {options['max_new_tokens']} are more than the {limit} "
                "that the model can read; give a shorter conversation or fewer new tokens."
            )
        prompts.append(torch.tensor(ids, device=model.device))
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))  # of like length: little padding
    for start in range(0, len(order), size):
        part = order[start : start + size]
        told, _ = replies(model, processor, [prompts[place] for place in part], options)
        for place, text in zip(part, told, strict=True):
            texts[place] = text
    return texts
