"""From texts to inputs of a masked language model, packed or one text an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.task import Encoded
from finetune.tasks.lengths import AS_TEXT, length_facts
from finetune.tasks.masking import FREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset, Features
    from transformers import PreTrainedTokenizerBase

    from finetune.task import Batch

    Table = dict[str, list[Any]]
    Piece = tuple[list[int], list[int]]  # token ids with the special ones around them; the unit of each, FREE: none

COLUMNS = ("input_ids", "units", "position_ids", "row", "row_id", "length", "cut")


class MaskedTexts:
    """Turns rows of texts into inputs of at most `block_size` tokens, [CLS] and [SEP] of every text included.

    Packed, texts are laid one after the other into a block until the next does not fit, each with special tokens and
    positions of its own; a text longer than a block goes on in the next, and 1,000 rows close their last one. `units`
    numbers what is hidden together, a token or a whole word, from 0 within an input.
    """

    def __init__(
        self,
        processor: PreTrainedTokenizerBase,
        text: str,
        block_size: int,
        pack: bool,
        whole_word: bool,
        on_long: str,
    ) -> None:
        self.processor, self.text, self.block_size = processor, text, block_size
        self.pack, self.whole_word, self.on_long = pack, whole_word, on_long
        self.before, self.after = _ends(processor)
        self.room = block_size - len(self.before) - len(self.after)
        if self.room < 1:
            raise UserError(f"task.block_size: {block_size} leaves no room for text beside the special tokens.")
        if whole_word and not processor.is_fast:
            raise UserError("task.whole_word: this tokenizer does not say where words begin; use a fast one.")

    def encode(self, rows: Dataset) -> Encoded:
        """Return the inputs. Raises UserError for a text too long under on_long "error", or when nothing is left."""
        given = {"batched": True, "with_indices": True, "remove_columns": rows.column_names}
        if not hasattr(rows, "num_rows"):
            return Encoded(rows.map(self, **given).remove_columns("cut"), {"streamed": True})
        inputs = rows.map(self, **given, features=_features(), load_from_cache_file=False, desc="tokens")
        if not inputs.num_rows:
            raise UserError(
                f"data.on_long: none of {rows.num_rows} texts is left; task.block_size is {self.block_size}."
            )
        facts = length_facts(rows.num_rows, inputs, self.block_size)
        if self.pack:  # a block is its own unit: it may hold pieces of many rows
            inputs = inputs.remove_columns("row").add_column("row", list(range(len(inputs))))
            facts |= {"dropped": 0, "documents": rows.num_rows}
        return Encoded(inputs.remove_columns("cut"), facts)

    def __call__(self, rows: Table, numbers: list[int]) -> Table:
        """Return the columns of a batch of rows."""
        made = self._packed(rows) if self.pack else self._one_by_one(rows, numbers)
        table: Table = {name: [] for name in COLUMNS}
        for each in made:
            for name in COLUMNS:
                table[name].append(each[name])
        return table

    def _pieces(self, rows: Table) -> Iterator[tuple[list[Piece], int]]:
        """Yield the pieces of each text, and how many tokens it has with special ones; a text may have no piece."""
        encoded = self.processor(list(rows[self.text]), add_special_tokens=False, **AS_TEXT)
        special = set(self.processor.all_special_ids)
        for number, ids in enumerate(encoded["input_ids"]):
            words = encoded.word_ids(number) if self.whole_word else range(len(ids))
            units = [FREE if one in special or word is None else word for one, word in zip(ids, words, strict=True)]
            parts = [slice(start, start + self.room) for start in range(0, len(ids), self.room)]
            pieces = [self._ended(ids[part], units[part]) for part in parts if set(units[part]) != {FREE}]
            yield pieces, len(ids) + self.block_size - self.room

    def _ended(self, ids: list[int], units: list[int]) -> Piece:
        free = [FREE] * len(self.before), [FREE] * len(self.after)
        return [*self.before, *ids, *self.after], [*free[0], *renumbered(units), *free[1]]

    def _one_by_one(self, rows: Table, numbers: list[int]) -> Iterator[dict[str, Any]]:
        for (pieces, length), number, row_id in zip(self._pieces(rows), numbers, rows["row_id"], strict=True):
            long = length > self.block_size
            if long and self.on_long == "error":
                raise UserError(
                    f"{row_id}: {length} tokens, and task.block_size is {self.block_size}. "
                    "Raise it, or set data.on_long to truncate, drop or window."
                )
            if long and self.on_long == "drop":
                continue
            cut = long and self.on_long == "truncate"
            for ids, units in pieces if self.on_long == "window" else pieces[:1]:
                made = {"input_ids": ids, "units": units, "position_ids": list(range(len(ids)))}
                yield {**made, "row": number, "row_id": row_id, "length": len(ids), "cut": cut}

    def _packed(self, rows: Table) -> Iterator[dict[str, Any]]:
        block: list[tuple[Piece, str]] = []
        used = count = 0
        for (pieces, _), row_id in zip(self._pieces(rows), rows["row_id"], strict=True):
            for piece in pieces:
                if used + len(piece[0]) > self.block_size:
                    yield _block(block, count)
                    block, used, count = [], 0, count + 1
                block.append((piece, row_id))
                used += len(piece[0])
        if block:
            yield _block(block, count)


def _features() -> Features:
    from datasets import Features, List, Value

    plain = {"row_id": "string", "cut": "bool"}
    features = {name: Value(plain.get(name, "int64")) for name in COLUMNS}
    return Features(features | {name: List(Value("int32")) for name in ("input_ids", "units", "position_ids")})


def _block(parts: list[tuple[Piece, str]], number: int) -> dict[str, Any]:
    """Return the input of a few pieces, each beginning at position 0 and with units of its own."""
    made: dict[str, Any] = {"input_ids": [], "units": [], "position_ids": []}
    for (ids, units), _ in parts:
        first = max(made["units"], default=FREE) + 1
        made["input_ids"] += ids
        made["units"] += [FREE if unit == FREE else first + unit for unit in units]
        made["position_ids"] += range(len(ids))
    names = list(dict.fromkeys(row_id for _, row_id in parts))
    shown = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)} texts)"
    return {**made, "row": number, "row_id": shown, "length": len(made["input_ids"]), "cut": False}


def renumbered(units: list[int]) -> list[int]:
    """Return the units as 0, 1, 2 … in the order in which they come; FREE stays."""
    number = {unit: place for place, unit in enumerate(dict.fromkeys(unit for unit in units if unit != FREE))}
    return [number.get(unit, FREE) for unit in units]


def _ends(processor: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    bare, whole = (processor("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    start = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), None)
    if start is None:
        raise UserError("model.tokenizer: where its special tokens stand around a text cannot be told.")
    return whole[:start], whole[start + len(bare) :]


def collate_masked(inputs: list[dict[str, Any]], pad_id: int, pack: bool, hidden: dict[str, int]) -> Batch:
    """Return a batch of inputs; `hidden`: the id of the mask and the size of the vocabulary."""
    import torch

    from finetune.training.batching import carried, padded

    longest = max(len(each["input_ids"]) for each in inputs)
    batch = carried(inputs)
    batch["input_ids"] = padded([each["input_ids"] for each in inputs], pad_id, longest)
    batch["units"] = padded([each["units"] for each in inputs], FREE, longest)
    if pack:  # a token of padding is a text of its own, which nothing else sees
        batch["position_ids"] = padded([each["position_ids"] for each in inputs], 0, longest)
    else:
        batch["attention_mask"] = padded([[1] * len(each["input_ids"]) for each in inputs], 0, longest)
    if "next" in inputs[0]:
        batch["token_type_ids"] = padded([each["token_type_ids"] for each in inputs], 0, longest)
        batch["next"] = torch.tensor([each["next"] for each in inputs])
    batch["hidden"] = torch.tensor([hidden["mask_id"], hidden["vocabulary"]])
    return batch
