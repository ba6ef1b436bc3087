"""Texts that are longer than the model reads: windows that overlap, and the one in which a place is read best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.tasks.lengths import AS_TEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """The tokens of one text, or of the second of a pair, and what stands around them."""

    ids: list[int]
    offsets: list[tuple[int, int]]  # of each token, in characters of the text
    kinds: list[int] | None  # token_type_ids of all, with what stands around
    before: list[int]  # ids: [CLS], or [CLS] and the first text and [SEP]
    after: list[int]  # ids: [SEP]

    @property
    def around(self) -> int:
        """How many tokens stand around the text."""
        return len(self.before) + len(self.after)

    def cut(self, start: int, end: int) -> dict[str, list[int]]:
        """Return the input that holds the tokens from `start` to `end`."""
        made = {"input_ids": [*self.before, *self.ids[start:end], *self.after]}
        if self.kinds is not None:
            inner = len(self.before) + len(self.ids)
            made["token_type_ids"] = [
                *self.kinds[: len(self.before)],
                *self.kinds[len(self.before) + start : len(self.before) + end],
                *self.kinds[inner:],
            ]
        return made


def tokens_of(processor: PreTrainedTokenizerBase, *texts: list[str]) -> list[Tokens]:
    """Return the tokens of the last of one or two columns of texts, with their places in it.

    Raises:
        UserError: the tokenizer does not know where its tokens stand.
    """
    if not processor.is_fast:
        raise UserError(
            f"model.tokenizer: {type(processor).__name__} does not say where in the text its tokens stand; "
            "use one with a tokenizer.json."
        )
    encoded = processor(*texts, add_special_tokens=True, return_offsets_mapping=True, **AS_TEXT)
    found = []
    for place in range(len(texts[0])):
        ids, sides = encoded["input_ids"][place], encoded.sequence_ids(place)
        inner = [at for at, side in enumerate(sides) if side == len(texts) - 1]
        # A text without tokens stands where it would: before what ends the input.
        start = inner[0] if inner else len(ids) - _ending(processor, len(texts))
        end = inner[-1] + 1 if inner else start
        kinds = encoded["token_type_ids"][place] if "token_type_ids" in encoded else None
        found.append(
            Tokens(ids[start:end], list(encoded["offset_mapping"][place][start:end]), kinds, ids[:start], ids[end:])
        )
    return found


def _ending(processor: PreTrainedTokenizerBase, texts: int) -> int:
    """Return how many special tokens end an input."""
    sides = processor(*["a"] * texts, add_special_tokens=True).sequence_ids(0)
    return len(sides) - 1 - max(at for at, side in enumerate(sides) if side is not None)


def windows(tokens: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Return (start, end) of windows of at most `room` tokens; each shares `overlap` of them with the next."""
    starts = range(0, max(tokens - overlap, 1), max(room - overlap, 1))
    return [(start, min(start + room, tokens)) for start in starts] if tokens > room else [(0, tokens)]


def best_window(spans: Sequence[tuple[int, int]], tokens: int, first: int, last: int) -> int | None:
    """Return the window in which the tokens `first` to `last` have most around them; None where none has `first`.

    What lies around is counted to the nearer end of the window; the ends of the text are no ends, for nothing more
    could be seen there.
    """
    best, most = None, 0.0
    for place, (start, end) in enumerate(spans):
        if not start <= first < end:
            continue
        left = first - start if start > 0 else tokens
        right = end - 1 - last if end < tokens else tokens
        if best is None or min(left, right) > most:
            best, most = place, min(left, right)
    return best


def room_of(tokens: Tokens, max_length: int, row_id: str) -> int:
    """Return how many tokens of the text an input has room for. UserError where it has none."""
    room = max_length - tokens.around
    if room < 1:
        raise UserError(
            f"{row_id}: {tokens.around} tokens stand around the text, and task.max_length is {max_length}: "
            "no room is left. Raise it."
        )
    return room


def fitted(length: int, room: int, on_long: str, overlap: int, row_id: str, whole: int) -> list[tuple[int, int]]:
    """Return the windows of a text that become inputs: one, several, or none where the row is dropped.

    Args:
        length: tokens of the text; `whole`: with what stands around it, for the message.
        on_long: of the recipe's data section.
    """
    if length <= room:
        return [(0, length)]
    if on_long == "error":
        raise UserError(
            f"{row_id}: {whole} tokens, and task.max_length is {room + whole - length}. "
            "Raise it, or set data.on_long to truncate, drop or window."
        )
    if on_long == "drop":
        return []
    return windows(length, room, overlap) if on_long == "window" else [(0, room)]


def padded_batch(inputs: list[dict[str, Any]], pad_id: int, more: dict[str, int]) -> dict[str, Any]:
    """Return a batch of inputs padded on the right; `more` names other columns of tokens and what fills them."""
    from finetune.training.batching import carried, padded

    longest = max(len(each["input_ids"]) for each in inputs)
    batch = carried(inputs)
    batch["attention_mask"] = padded([[1] * len(each["input_ids"]) for each in inputs], 0, longest)
    for name, filling in {"input_ids": pad_id, "token_type_ids": 0, **more}.items():
        if name in inputs[0]:
            batch[name] = padded([each[name] for each in inputs], filling, longest)
    return batch
