"""From texts to tokens, and what happens to texts that are too long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.task import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# A "[SEP]" or "<|endoftext|>" that somebody typed is text, and not the token by which the model knows an end.
AS_TEXT: dict[str, Any] = {"split_special_tokens": True, "verbose": False}


def encode_texts(
    rows: Dataset,
    processor: PreTrainedTokenizerBase,
    texts: list[str],
    max_length: int,
    on_long: str,
    targets: Callable[[dict[str, list[Any]]], list[Any]] | None,
) -> Encoded:
    """Return the texts (or pairs) as inputs of at most `max_length` tokens, special ones included.

    Args:
        texts: one column, or two for pairs.
        on_long: "error", "truncate", "drop" the row, or "window": several inputs a row, a quarter of overlap.
        targets: from a batch of rows to the `labels` column; None leaves the column out.

    Raises:
        UserError: a row is too long and `on_long` is "error", or every row was dropped.
    """
    return encoded(rows, _Encoder(processor, texts, max_length, on_long, targets), max_length)


def encoded(
    rows: Dataset,
    encode: Callable[[dict[str, list[Any]], list[int]], dict[str, list[Any]]],
    max_length: int,
    kinds: dict[str, Any] | None = None,
    account: Callable[[Dataset], dict[str, Any]] | None = None,
) -> Encoded:
    """Return rows as the inputs that `encode` makes of each batch of them, with what became of their lengths.

    Args:
        encode: from a batch of rows and their numbers to a table of inputs, with a column "cut".
        kinds: the types of the inputs' columns, where they cannot be told from the first batch.
        account: what else is to be recorded of the inputs of a table; a stream is not looked at beforehand.

    Raises:
        UserError: every row was dropped.
    """
    from datasets import Features

    of_tables: dict[str, Any] = {"load_from_cache_file": False, "desc": "tokens"} if hasattr(rows, "num_rows") else {}
    inputs = rows.map(
        encode, batched=True, with_indices=True, remove_columns=rows.column_names,
        features=None if kinds is None else Features(kinds), **of_tables,
    )  # fmt: skip
    if not hasattr(inputs, "num_rows"):  # a stream: nothing is known of its lengths beforehand
        return Encoded(inputs.remove_columns("cut"), {"streamed": True})
    if not inputs.num_rows:
        raise UserError(f"data.on_long: all {rows.num_rows} rows are longer than task.max_length {max_length}.")
    facts = length_facts(rows.num_rows, inputs, max_length) | ({} if account is None else account(inputs))
    return Encoded(inputs.remove_columns("cut"), facts)


def length_facts(rows: int, inputs: Dataset, limit: int) -> dict[str, Any]:
    """Return counts and quantiles of lengths (tokens), for the run's record."""
    import numpy as np

    lengths = np.asarray(inputs.with_format("numpy")["length"][:])
    cut = int(np.asarray(inputs.with_format("numpy")["cut"][:]).sum()) if "cut" in inputs.column_names else 0
    with_input = len(set(inputs["row"][:]))
    return {
        "rows": rows,
        "inputs": len(lengths),
        "dropped": rows - with_input,
        "cut": cut,
        "cut_share": cut / max(rows, 1),
        "tokens": int(lengths.sum()),
        "limit": limit,
        "length_quantiles": {str(q): int(np.quantile(lengths, q)) for q in (0.5, 0.9, 0.99, 1.0)},
    }


class _Encoder:
    """Encodes one batch of rows; a class so that its options travel with it to worker processes."""

    def __init__(
        self,
        processor: PreTrainedTokenizerBase,
        texts: list[str],
        max_length: int,
        on_long: str,
        targets: Callable[[dict[str, list[Any]]], list[Any]] | None,
    ) -> None:
        self.processor, self.texts, self.max_length = processor, texts, max_length
        self.on_long, self.targets = on_long, targets

    def __call__(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        columns = [rows[name] for name in self.texts]
        window = {"return_overflowing_tokens": True, "stride": self.max_length // 4} if self.on_long == "window" else {}
        # The whole length is looked at first: a tokenizer that truncates says nothing of what it left out.
        whole = self.processor(*columns, add_special_tokens=True, **AS_TEXT)
        long = [len(ids) > self.max_length for ids in whole["input_ids"]]
        if self.on_long == "error" and any(long):
            first = long.index(True)
            length = len(whole["input_ids"][first])
            raise UserError(
                f"{rows['row_id'][first]}: {length} tokens, and task.max_length is {self.max_length}. "
                "Raise it, or set data.on_long to truncate, drop or window."
            )
        encoded = whole
        if any(long):
            encoded = self.processor(
                *columns, truncation=True, max_length=self.max_length, add_special_tokens=True, **AS_TEXT, **window
            )
        owners = encoded.get("overflow_to_sample_mapping", range(len(numbers)))
        keep = [place for place, owner in enumerate(owners) if not (self.on_long == "drop" and long[owner])]
        return self._table(rows, numbers, encoded, list(owners), long, keep)

    def _table(
        self,
        rows: dict[str, list[Any]],
        numbers: list[int],
        encoded: Any,
        owners: list[int],
        long: list[bool],
        keep: list[int],
    ) -> dict[str, list[Any]]:
        names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
        table = {name: [encoded[name][place] for place in keep] for name in names}
        table["length"] = [len(ids) for ids in table["input_ids"]]
        table["row"] = [numbers[owners[place]] for place in keep]
        table["row_id"] = [rows["row_id"][owners[place]] for place in keep]
        table["cut"] = [long[owners[place]] and self.on_long == "truncate" for place in keep]
        if self.targets is not None:
            labels = self.targets(rows)
            table["labels"] = [labels[owners[place]] for place in keep]
        return table
