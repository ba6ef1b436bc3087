"""From questions and the texts that answer them to tokens; long texts in windows, the question in front of each."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.evaluation.metrics.answer_f1 import exact_match
from finetune.task import Encoded
from finetune.tasks import windows
from finetune.tasks.lengths import encoded

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

NOWHERE = 0  # the place that says that the answer is not here: [CLS]
IGNORED = -100  # no target: an input that begins with the question, as GPT-2's, has no such place


@dataclass(frozen=True)
class Layout:
    """How rows become inputs; travels to worker processes."""

    question: str
    context: str
    answers: str | None  # None: rows to be answered
    max_length: int
    stride: int
    max_answer_length: int
    can_be_none: bool


def encode_questions(rows: Dataset, processor: PreTrainedTokenizerBase, layout: Layout, on_long: str) -> Encoded:
    """Return rows as inputs of at most `max_length` tokens: question, then as much of the context as fits.

    Columns besides those that every input has:

        begins: place of the first token of the context; starts, ends: of each such token, in characters of the context.
        labels: places of the first and the last token of an answer; where this input has none NOWHERE twice, so that a
            window without the answer learns to keep silent, or IGNORED.
        context, answers: of the row, in its first input; empty in the others.

    Raises:
        UserError: a row is too long and `on_long` is "error", a question leaves no room, or every row was dropped.
    """
    import datasets

    whole = datasets.List(datasets.Value("int32"))
    kinds: dict[str, Any] = dict.fromkeys(("input_ids", "starts", "ends"), whole)
    if "token_type_ids" in processor(["a"], ["a"], add_special_tokens=True):
        kinds["token_type_ids"] = whole
    if layout.answers is not None:
        kinds |= {"labels": whole, "answers": datasets.List(datasets.Value("string"))}
    kinds |= dict.fromkeys(("begins", "length", "row"), datasets.Value("int32"))
    kinds |= {"row_id": datasets.Value("string"), "context": datasets.Value("string"), "cut": datasets.Value("bool")}
    noted = None if layout.answers is None else partial(account, rows, layout=layout)
    return encoded(rows, _Encoder(processor, layout, on_long), layout.max_length, kinds, noted)


class _Encoder:
    """Encodes one batch of rows."""

    def __init__(self, processor: PreTrainedTokenizerBase, layout: Layout, on_long: str) -> None:
        self.processor, self.layout, self.on_long = processor, layout, on_long

    def __call__(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        layout = self.layout
        contexts = rows[layout.context]
        tokens = windows.tokens_of(self.processor, rows[layout.question], contexts)
        table: dict[str, list[Any]] = {}
        for place, number in enumerate(numbers):
            answers = None if layout.answers is None else rows[layout.answers][place]
            row_id = rows["row_id"][place]
            for made in self._inputs(tokens[place], contexts[place], answers, row_id):
                for name, value in {**made, "row": number, "row_id": row_id}.items():
                    table.setdefault(name, []).append(value)
        return table

    def _inputs(
        self, tokens: windows.Tokens, context: str, answers: dict[str, Any] | None, row_id: str
    ) -> list[dict[str, Any]]:
        layout, length = self.layout, len(tokens.ids)
        room = windows.room_of(tokens, layout.max_length, row_id)
        overlap = min(layout.stride, room - 1)
        spans = windows.fitted(length, room, self.on_long, overlap, row_id, length + tokens.around)
        places = [] if answers is None else places_of(tokens.offsets, answers)
        made: list[dict[str, Any]] = []
        for start, end in spans:
            begins = len(tokens.before)
            each: dict[str, Any] = tokens.cut(start, end)
            each["begins"] = begins
            each["starts"] = [place for place, _ in tokens.offsets[start:end]]
            each["ends"] = [place for _, place in tokens.offsets[start:end]]
            each["context"] = "" if made else context
            if answers is not None:
                inside = [(first, last) for first, last in places if start <= first and last < end]
                says = layout.can_be_none or tokens.before[0] in self.processor.all_special_ids
                nowhere = NOWHERE if says else IGNORED
                first, last = inside[0] if inside else (nowhere, nowhere)
                each["labels"] = [first - start + begins, last - start + begins] if inside else [first, last]
                each["answers"] = [] if made else list(answers["text"])
            each |= {"length": len(each["input_ids"]), "cut": len(spans) == 1 and end < length}
            made.append(each)
        return made


def places_of(offsets: Sequence[tuple[int, int]], answers: dict[str, Any]) -> list[tuple[int, int]]:
    """Return (first, last) token of each answer that has tokens.

    Args:
        offsets: (start, end) of each token, in characters.
        answers: {"text": …, "answer_start": …}, lists as long.
    """
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    found = []
    for text, at in zip(answers["text"], answers["answer_start"], strict=True):
        first, last = bisect_right(ends, at), bisect_left(starts, at + len(text)) - 1
        if first <= last:
            found.append((first, last))
    return found


def text_between(context: str, start: int, end: int) -> tuple[str, int, int]:
    """Return the text between two characters without white space around it, and where it stands.

    Tokens of a byte-level BPE begin with the space before a word.
    """
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    return text, start, start + len(text)


def account(rows: Dataset, inputs: Dataset, layout: Layout) -> dict[str, Any]:
    """Return how many answers are left after encoding, in numbers, and said."""
    known: dict[int, str] = {}
    found: dict[int, list[tuple[int, int]]] = {}
    long = 0
    for row, context, labels, begins, starts, ends in zip(
        *(inputs[name] for name in ("row", "context", "labels", "begins", "starts", "ends")), strict=True
    ):
        known.setdefault(row, context)
        if labels[0] >= begins:
            found.setdefault(row, []).append((starts[labels[0] - begins], ends[labels[1] - begins]))
            long += labels[1] - labels[0] >= layout.max_answer_length and len(found[row]) == 1
    answers = rows[layout.answers]
    there = [row for row in known if answers[row]["text"]]
    lost = sum(row not in found for row in there)
    given = {row: text_between(known[row], *found[row][0])[0] for row in there if row in found}
    inexact = sum(not exact_match(text, answers[row]["text"]) for row, text in given.items())
    facts: dict[str, Any] = {
        "answers": len(there), "answers_lost": lost, "answers_too_long": long, "answers_inexact": inexact,
        "without_answer": len(known) - len(there), "said": [],
    }  # fmt: skip
    if lost:
        facts["said"].append(
            f"{lost:,} of {len(there):,} answers are wholly in no input: they cannot be found, and count in the scores"
            + (" (data.on_long: window reads on where the first input ends)" if any(inputs["cut"]) else "")
        )
    if long:
        facts["said"].append(
            f"{long:,} answers are longer than task.max_answer_length {layout.max_answer_length} tokens"
        )
    if inexact:
        facts["said"].append(f"{inexact:,} answers begin or end inside a token: no exact match can be reached there")
    if facts["without_answer"]:
        facts["said"].append(f"{facts['without_answer']:,} of {len(known):,} questions have no answer")
    return facts
