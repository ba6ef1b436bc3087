"""Texts that a model writes: under which options, and as what they travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError, did_you_mean
from finetune.tasks.lengths import AS_TEXT

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Where nothing is said: the likeliest token each time, whatever the checkpoint has as its own habit.
PLAIN: dict[str, Any] = {"do_sample": False, "num_beams": 1}
HABITS: dict[str, Any] = {  # of a checkpoint, that are put aside
    "min_length": 0, "min_new_tokens": None, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0,
    "length_penalty": 1.0, "early_stopping": False, "num_return_sequences": 1, "temperature": None, "top_k": None,
    "top_p": None, "max_length": None,
}  # fmt: skip
# Set by the model, by the task, or by what a text is.
NOT_OPTIONS: tuple[str, ...] = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "max_length",
    "use_cache",
)
NOT_OPTIONS += ("num_return_sequences", "return_dict_in_generate", "transformers_version")


def check_options(given: Mapping[str, Any], option: str, sampling: bool) -> None:
    """Raise UserError for what is no option of GenerationConfig, has a wrong value, or draws where it must not.

    `option` is what stands before the names where they were written: "task.generation." or "--".
    """
    from transformers import GenerationConfig

    known = {name for name in GenerationConfig().to_dict() if not name.startswith("_")} - set(NOT_OPTIONS)
    for name in given:
        if name not in known:
            raise UserError(f"{option}{name} is not an option of GenerationConfig.{did_you_mean(name, known)}")
    for name in ("max_new_tokens", "num_beams"):
        value = given.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{option}{name}: {value!r} is not a whole number from 1 on.")
    if given.get("do_sample") and not sampling:
        raise UserError(f"{option}do_sample: drawn texts would make scores chance; leave it out.")
    try:
        GenerationConfig(**{**PLAIN, **given}).validate(strict=True)
    except (ValueError, TypeError) as error:
        raise UserError(f"{option.rstrip('.')}: {' '.join(str(error).split())[:200]}") from None


def written(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, given: dict[str, Tensor], options: Mapping[str, Any]
) -> list[str]:
    """Return what the model writes for a batch, without special tokens; the given tokens of a decoder are left out.

    Args:
        model: in evaluation mode.
        tokenizer: of what is written.
        given: input_ids and attention_mask; padded on the left for a decoder alone.
        options: of GenerationConfig; `max_new_tokens` is among them.
    """
    out = written_ids(model, given, options)
    return [str(text) for text in tokenizer.batch_decode(out, skip_special_tokens=True)]


def written_ids(model: PreTrainedModel, given: dict[str, Tensor], options: Mapping[str, Any]) -> Tensor:
    """Return the tokens that `written` makes texts of, padded on the right; shape (batch, new tokens)."""
    import copy

    import torch
    from accelerate.utils import extract_model_from_parallel

    inner: Any = extract_model_from_parallel(model)
    settings = copy.deepcopy(inner.generation_config)
    settings.update(**{**HABITS, **options})
    with torch.no_grad():
        out: Tensor = inner.generate(**given, generation_config=settings)
    return out if inner.config.is_encoder_decoder else out[:, given["input_ids"].shape[1] :]


def continued(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    column: str,
    options: Mapping[str, Any],
    size: int,
) -> list[str]:
    """Return how a decoder goes on with the texts of a column, which open a document; `size` of them at a time.

    Texts of one length stand in a batch, so that none is padded and each is written as it would be alone.

    Raises:
        UserError: a text and `max_new_tokens` are more than the model can read.
    """
    import torch

    from finetune.loading import context_length

    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    limit, groups = context_length(model.config), dict[int, list[tuple[int, list[int]]]]()
    for place, (text, row_id) in enumerate(zip(rows[column], rows["row_id"], strict=True)):
        ids = list(tokenizer(text, add_special_tokens=True, **AS_TEXT)["input_ids"])
        ids = ids if ids and ids[0] == start else [start, *ids]
        if limit and len(ids) + options["max_new_tokens"] > limit:
            raise UserError(
                f"{row_id}: {len(ids)} tokens and max_new_tokens {options['max_new_tokens']} are more than the {limit} "
                "that the model can read; give a shorter text or fewer new tokens."
            )
        groups.setdefault(len(ids), []).append((place, ids))
    texts = [""] * len(rows)
    for group in groups.values():
        for first in range(0, len(group), size):
            part = group[first : first + size]
            given = torch.tensor([ids for _, ids in part], device=model.device)
            found = written(model, tokenizer, {"input_ids": given, "attention_mask": torch.ones_like(given)}, options)
            for (place, _), text in zip(part, found, strict=True):
                texts[place] = text
    return texts


def as_bytes(texts: Sequence[str]) -> Tensor:
    """Return texts as UTF-8, of shape (n, longest), filled with 0: an answer is a tensor, and needs no tokenizer."""
    import torch

    coded = [text.replace("\0", "").encode() for text in texts]
    out = torch.zeros((len(coded), max(map(len, coded), default=0)), dtype=torch.uint8)
    for row, each in zip(out, coded, strict=True):
        row[: len(each)] = torch.tensor(list(each), dtype=torch.uint8)
    return out


def as_texts(coded: np.ndarray) -> list[str]:
    """Return the texts of `as_bytes`."""
    return [row.tobytes().rstrip(b"\0").decode() for row in coded]
