"""From pairs of texts to tokens, and what happens to those that are too long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.task import Encoded
from finetune.tasks.lengths import AS_TEXT, length_facts
from finetune.tasks.two_tokenizers import TwoTokenizers, end_of

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.task import Batch, Processor
    from finetune.tasks.seq2seq import Seq2Seq

Table = dict[str, list[Any]]


def encode_pairs(task: Seq2Seq, rows: Dataset, processor: Processor, on_long: str) -> Encoded:
    """Return sources as `input_ids` and targets as `labels`, both with what their tokenizer adds; and the texts.

    A target ends with the end of text, unless it was cut: to stop there is not to be learned. `length` is that of both
    together, `bytes` the UTF-8 length that the targets stand for.

    Raises:
        UserError: a row is too long and `on_long` is "error", or every row was dropped.
    """
    if on_long == "window":
        raise UserError("data.on_long: a pair of texts has no windows; set truncate, drop or error.")
    encode = _Pairs(task, processor, on_long, targets=task.target in (rows.column_names or [task.target]))
    of_tables: dict[str, Any] = {"load_from_cache_file": False, "desc": "tokens"} if hasattr(rows, "num_rows") else {}
    inputs = rows.map(encode, batched=True, with_indices=True, remove_columns=rows.column_names, **of_tables)
    if not hasattr(inputs, "num_rows"):  # a stream: nothing is known of its lengths beforehand
        return Encoded(inputs.remove_columns(["cut", "cut_source"]), {"streamed": True})
    if not inputs.num_rows:
        raise UserError(
            f"data.on_long: all {rows.num_rows} rows are longer than task.max_source_length {task.max_source_length} "
            f"or task.max_target_length {task.max_target_length}."
        )
    limit = task.max_source_length + task.max_target_length
    facts = length_facts(rows.num_rows, inputs, limit)
    cut = sum(inputs["cut_source"][:])
    facts |= {"limit": f"{task.max_source_length} + {task.max_target_length}", "cut_sources": cut}
    return Encoded(inputs.remove_columns(["cut", "cut_source"]), facts)


class _Pairs:
    """Encodes one batch of rows; a class so that its options travel with it to worker processes."""

    def __init__(self, task: Seq2Seq, processor: Processor, on_long: str, targets: bool) -> None:
        self.task, self.on_long, self.targets = task, on_long, targets
        two = isinstance(processor, TwoTokenizers)
        self.reader, self.writer, self.bare = (
            (processor.encoder, processor.decoder, True) if two else (processor, processor, False)
        )
        self.end: Any = end_of(self.writer)

    def __call__(self, rows: Table, numbers: list[int]) -> Table:
        sources = self._sources(rows[self.task.source])
        targets = self._targets(rows[self.task.target]) if self.targets else [[] for _ in numbers]
        table: Table = {name: [] for name in ("input_ids", "labels", "bytes", "length", "row", "row_id", "cut")}
        table |= {"cut_source": [], "source_text": [], "target_text": []}
        for place, number in enumerate(numbers):
            whole, row_id = targets[place], rows["row_id"][place]
            (ids, uncut), label = sources[place], whole[: self.task.max_target_length]
            if uncut > self.task.max_source_length and self.on_long == "error":
                raise UserError(self._said(row_id, "source", uncut, self.task.max_source_length))
            if len(whole) > len(label) and self.on_long == "error":
                raise UserError(self._said(row_id, "target", len(whole), self.task.max_target_length))
            long = uncut > self.task.max_source_length or len(whole) > len(label)
            if long and self.on_long == "drop":
                continue
            table["input_ids"].append(ids)
            table["source_text"].append(rows[self.task.source][place])
            table["length"].append(len(ids) + len(label))
            table["row"].append(number)
            table["row_id"].append(row_id)
            table["cut"].append(long)
            table["cut_source"].append(uncut > self.task.max_source_length)
            if self.targets:
                text = rows[self.task.target][place]
                table["labels"].append(label)
                table["target_text"].append(text)
                table["bytes"].append(len(text.encode()) * len(label) / max(len(whole), 1))
        return table if self.targets else {name: each for name, each in table.items() if each or name not in TARGETS}

    def _sources(self, texts: list[str]) -> list[tuple[list[int], int]]:
        """Return the tokens of each source, and how many there were before it was cut."""
        given, limit = [self.task.prefix + text for text in texts], self.task.max_source_length
        # The whole length is looked at first: a tokenizer that truncates says nothing of what it left out.
        whole = self.reader(given, **AS_TEXT)["input_ids"]
        if all(len(ids) <= limit for ids in whole):
            return [(list(ids), len(ids)) for ids in whole]
        cut = self.reader(given, truncation=True, max_length=limit, **AS_TEXT)["input_ids"]
        return [(list(ids), len(uncut)) for ids, uncut in zip(cut, whole, strict=True)]

    def _targets(self, texts: list[str]) -> list[list[int]]:
        if self.bare:  # an encoder's [CLS] would be one more token to write
            found = self.writer(list(texts), add_special_tokens=False, **AS_TEXT)["input_ids"]
        else:
            found = self.writer(text_target=list(texts), **AS_TEXT)["input_ids"]
        return [list(ids) if ids and ids[-1] == self.end else [*ids, self.end] for ids in found]

    def _said(self, row_id: str, what: str, length: int, limit: int) -> str:
        return (
            f"{row_id}: its {what} has {length} tokens, and task.max_{what}_length is {limit}. "
            "Raise it, or set data.on_long to truncate or drop."
        )


TARGETS = ("labels", "target_text", "bytes")


def collate(inputs: list[dict[str, Any]], pad_id: int) -> Batch:
    """Return a batch: sources and targets padded on the right, each to its longest."""
    from finetune.training.batching import IGNORED, carried, padded

    ids = [each["input_ids"] for each in inputs]
    longest = max(map(len, ids))
    batch = carried(inputs)
    batch["input_ids"] = padded(ids, pad_id, longest)
    batch["attention_mask"] = padded([[1] * len(each) for each in ids], 0, longest)  # by length, never by the pad's id
    if "labels" in inputs[0]:
        labels = [each["labels"] for each in inputs]
        batch["labels"] = padded(labels, IGNORED, max(map(len, labels)))
    return batch
