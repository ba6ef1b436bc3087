"""From documents to blocks of tokens with next-token targets, packed or one text an input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.task import Encoded
from finetune.tasks.lengths import AS_TEXT, length_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Table = dict[str, list[Any]]
CHUNK = 1000  # rows encoded and laid down at a time
COLUMNS = ("input_ids", "labels", "position_ids", "bytes", "row", "row_id", "length", "cut")


def encode_documents(
    rows: Dataset,
    processor: PreTrainedTokenizerBase,
    text: str,
    block_size: int,
    pack: bool,
    on_long: str,
    option: str = "task.block_size",
) -> Encoded:
    """Return documents as inputs of at most `block_size` (token, next token) pairs.

    A document is its tokens between the tokenizer's bos (where it has one) and eos, so the first token has a
    prediction and the end is learned; the eos target is never masked, whatever the padding token is. Packed, the pairs
    of all documents are laid end to end and cut into full blocks; `position_ids` restart with every piece, and the
    mask that is built from them keeps the pieces apart. `bytes` is the UTF-8 length that an input's targets stand for.
    `option` is what a recipe calls `block_size`.

    Raises:
        UserError: no tokenizer end, a text that is too long under on_long "error", or nothing left to train on.
    """
    if processor.eos_token_id is None:
        raise UserError("model.path: this tokenizer has no end-of-text token, so a model could never learn to stop.")
    documents = _Documents(processor, text)
    if not hasattr(rows, "num_rows"):
        return Encoded(_streamed(rows, documents, block_size, pack, on_long, option), {"streamed": True})
    from datasets import concatenate_datasets

    packer = _Packer(block_size) if pack else _OneByOne(block_size, on_long, option)
    parts = []
    for start in range(0, rows.num_rows, CHUNK):
        batch = rows[start : start + CHUNK]
        numbers = list(range(start, start + len(batch["row_id"])))
        parts.append(_table(packer.add(documents(batch), numbers, batch["row_id"])))
    inputs = concatenate_datasets([*parts, _table(packer.rest())])
    if not len(inputs):
        raise UserError(f"data.on_long: all {rows.num_rows} texts are longer than {option} {block_size}.")
    facts = length_facts(rows.num_rows, inputs, block_size)
    if pack:  # a block is its own unit: it may hold pieces of many rows
        facts |= {"dropped": 0, "documents": rows.num_rows}
    return Encoded(inputs.remove_columns("cut"), facts)


def _table(made: Iterator[dict[str, Any]]) -> Dataset:
    from datasets import Dataset, Features, List, Value

    kinds = {"bytes": "float64", "row_id": "string", "cut": "bool"}
    features = {name: Value(kinds.get(name, "int64")) for name in COLUMNS}
    features |= {name: List(Value("int32")) for name in ("input_ids", "labels", "position_ids")}
    table: Table = {name: [] for name in COLUMNS}
    for each in made:
        _append(table, each)
    return Dataset.from_dict(table, features=Features(features))


def _append(table: Table, made: dict[str, Any]) -> None:
    for name in COLUMNS:
        table[name].append(made[name])


class _Documents:
    """Turns texts into (token ids with bos and eos, UTF-8 bytes)."""

    def __init__(self, processor: PreTrainedTokenizerBase, text: str) -> None:
        self.processor, self.text = processor, text

    def __call__(self, rows: Table) -> Iterator[tuple[list[int], int]]:
        bos, eos = self.processor.bos_token_id, self.processor.eos_token_id
        encoded = self.processor(list(rows[self.text]), add_special_tokens=False, **AS_TEXT)["input_ids"]
        for ids, text in zip(encoded, rows[self.text], strict=True):
            yield [*([] if bos is None else [bos]), *ids, eos], len(text.encode())


class _Packer:
    """Lays the (token, target) pairs of documents end to end and hands out full blocks."""

    def __init__(self, block_size: int) -> None:
        self.block_size, self.count = block_size, 0
        self._clear()

    def _clear(self) -> None:
        self.block: dict[str, Any] = {"input_ids": [], "labels": [], "position_ids": [], "bytes": 0.0, "row_ids": []}

    def add(
        self, documents: Iterator[tuple[list[int], int]], numbers: list[int], row_ids: list[str]
    ) -> Iterator[dict[str, Any]]:
        for (ids, size), row_id in zip(documents, row_ids, strict=True):
            pairs, done = len(ids) - 1, 0
            while done < pairs:
                take = min(pairs - done, self.block_size - len(self.block["labels"]))
                self.block["input_ids"] += ids[done : done + take]
                self.block["labels"] += ids[done + 1 : done + 1 + take]
                self.block["position_ids"] += range(take)
                self.block["bytes"] += size * take / pairs
                self.block["row_ids"].append(row_id)
                done += take
                if len(self.block["labels"]) == self.block_size:
                    yield self._made()

    def rest(self) -> Iterator[dict[str, Any]]:
        if self.block["labels"]:
            yield self._made()

    def _made(self) -> dict[str, Any]:
        ids = self.block.pop("row_ids")
        shown = ids[0] if len(ids) == 1 else f"{ids[0]} … {ids[-1]} ({len(ids)} texts)"
        made = {**self.block, "row": self.count, "row_id": shown, "length": len(self.block["labels"]), "cut": False}
        self.count += 1
        self._clear()
        return made


class _OneByOne:
    """One text an input; what is too long is cut, dropped, refused, or goes on in further inputs."""

    def __init__(self, block_size: int, on_long: str, option: str) -> None:
        self.block_size, self.on_long, self.option = block_size, on_long, option

    def add(
        self, documents: Iterator[tuple[list[int], int]], numbers: list[int], row_ids: list[str]
    ) -> Iterator[dict[str, Any]]:
        for (ids, size), number, row_id in zip(documents, numbers, row_ids, strict=True):
            pairs = len(ids) - 1
            long = pairs > self.block_size
            if long and self.on_long == "error":
                raise UserError(
                    f"{row_id}: {pairs} tokens, and {self.option} is {self.block_size}. "
                    "Raise it, or set data.on_long to truncate, drop or window."
                )
            if long and self.on_long == "drop":
                continue
            for start in range(0, pairs if self.on_long == "window" else 1, self.block_size):
                take = min(self.block_size, pairs - start)
                yield {
                    "input_ids": ids[start : start + take],
                    "labels": ids[start + 1 : start + 1 + take],
                    "position_ids": list(range(take)),
                    "bytes": size * take / pairs,
                    "row": number,
                    "row_id": row_id,
                    "length": take,
                    "cut": long and self.on_long == "truncate",
                }

    def rest(self) -> Iterator[dict[str, Any]]:
        return iter(())


def _streamed(rows: Any, documents: _Documents, block_size: int, pack: bool, on_long: str, option: str) -> Any:
    """Return the stream of inputs of a stream of rows; a packed block is filled within a chunk of 1,000 rows."""

    def encode(batch: Table, numbers: list[int]) -> Table:
        packer = _Packer(block_size) if pack else _OneByOne(block_size, on_long, option)
        table: Table = {name: [] for name in COLUMNS}
        for made in [*packer.add(documents(batch), numbers, batch["row_id"]), *packer.rest()]:
            _append(table, made)
        del table["cut"]
        return table

    return rows.map(encode, batched=True, with_indices=True, remove_columns=rows.column_names)
