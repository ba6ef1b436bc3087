"""From words with tags to tokens with labels; every word is learned and read in one input alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune.errors import UserError
from finetune.evaluation.metrics.span_f1 import spans_of
from finetune.task import Encoded
from finetune.tasks import windows
from finetune.tasks.lengths import encoded
from finetune.tasks.tag_schemes import Scheme, look
from finetune.tasks.tagged_words import all_tags, check_length, check_scheme, rewriting, to_learn

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # as finetune.training.batching has it, which imports torch


@dataclass(frozen=True)
class Layout:
    """How rows become inputs; travels to worker processes."""

    words: str
    text: str | None
    tags: str | None  # None: rows to be answered
    labels: tuple[str, ...]
    scheme: Scheme | None
    spans: bool
    max_length: int
    every_part: bool  # all sub-words of a word have its label, not the first alone


def encode_words(rows: Dataset, processor: PreTrainedTokenizerBase, layout: Layout, on_long: str) -> Encoded:
    """Return rows as inputs of at most `max_length` tokens.

    Words are joined by a space, unless rows have the text that they come from, and that is encoded; so a model learns
    from what its tokenizer makes of running text. Columns besides those that every input has:

        numbers, places: of the words that this input is asked about, in the row, and of each one's first token.
        words: how many the row has.
        labels: of each token, IGNORED for all but (the first of) those words' own.
        tags: in the first input of a row, the label of each of its words.

    Raises:
        UserError: a tag or a word is wrong; a row is too long and `on_long` is "error"; every row was dropped.
    """
    import datasets

    whole = datasets.List(datasets.Value("int32"))
    kinds: dict[str, Any] = dict.fromkeys(("input_ids", "numbers", "places"), whole)
    if "token_type_ids" in processor(*["a"], add_special_tokens=True):
        kinds["token_type_ids"] = whole
    if layout.tags is not None:
        kinds |= {"labels": whole, "tags": whole}
    kinds |= dict.fromkeys(("words", "length", "row"), datasets.Value("int32"))
    kinds |= {"row_id": datasets.Value("string"), "cut": datasets.Value("bool")}
    noted = partial(_account, rows, layout=layout)
    return encoded(rows, _Encoder(processor, layout, on_long), layout.max_length, kinds, noted)


class _Encoder:
    """Encodes one batch of rows."""

    def __init__(self, processor: PreTrainedTokenizerBase, layout: Layout, on_long: str) -> None:
        self.processor, self.layout, self.on_long = processor, layout, on_long

    def __call__(self, rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        layout = self.layout
        words, row_ids = rows[layout.words], rows["row_id"]
        given = rows[layout.text] if layout.text else [None] * len(words)
        laid = [located(each, text, row_id) for each, text, row_id in zip(words, given, row_ids, strict=True)]
        tokens = windows.tokens_of(self.processor, [text for text, _ in laid])
        table: dict[str, list[Any]] = {}
        for place, number in enumerate(numbers):
            tags = None
            if layout.tags is not None:
                check_length(row_ids[place], words[place], rows[layout.tags][place], layout.tags)
                tags = to_learn(
                    row_ids[place], rows[layout.tags][place], layout.labels, layout.scheme, layout.spans, layout.tags
                )
            for made in self._inputs(tokens[place], laid[place][1], tags, row_ids[place]):
                made |= {"words": len(words[place]), "row": number, "row_id": row_ids[place]}
                for name, value in made.items():
                    table.setdefault(name, []).append(value)
        return table

    def _inputs(
        self, tokens: windows.Tokens, places: list[tuple[int, int]], tags: list[int] | None, row_id: str
    ) -> list[dict[str, Any]]:
        layout, length = self.layout, len(tokens.ids)
        room = windows.room_of(tokens, layout.max_length, row_id)
        overlap = min(layout.max_length // 4, room - 1)
        spans = windows.fitted(length, room, self.on_long, overlap, row_id, length + tokens.around)
        parts = tokens_of_words(tokens.offsets, places)
        asked: list[list[int]] = [[] for _ in spans]  # words, by the input that is asked about them
        for word, (first, last) in parts.items():
            best = windows.best_window(spans, length, first, last)
            if best is not None:
                asked[best].append(word)
        made: list[dict[str, Any]] = []
        for (start, end), words in zip(spans, asked, strict=True):
            if not words and made:  # of one long word's middle
                continue
            before = len(tokens.before)
            each: dict[str, Any] = tokens.cut(start, end)
            if not each["input_ids"]:  # a text without tokens, and a tokenizer that adds none
                each["input_ids"] = [self.processor.pad_token_id]
            each["numbers"], each["places"] = words, [parts[word][0] - start + before for word in words]
            if tags is not None:
                labels = [IGNORED] * len(each["input_ids"])
                for word in words:
                    first, last = parts[word]
                    for token in range(first, min(last, end - 1) + 1 if layout.every_part else first + 1):
                        labels[token - start + before] = tags[word]
                each |= {"labels": labels, "tags": [] if made else tags}
            each |= {"length": len(each["input_ids"]), "cut": len(spans) == 1 and end < length}
            made.append(each)
        return made


def located(words: Sequence[str], text: str | None, row_id: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of some words and (start, end) of each in it, in characters; joined by a space without one.

    Raises:
        UserError: a word does not stand in the text that is given, after the words before it.
    """
    places, at = [], 0
    for number, word in enumerate(words):
        if text is not None:
            found = text.find(word, at)
            if found < 0:
                raise UserError(
                    f'{row_id}, word {number + 1}: "{word}" does not stand in the text after the words before it, '
                    f'which goes on "{text[at : at + 30]}".'
                )
            at = found
        places.append((at, at + len(word)))
        at += len(word) + (text is None)
    return " ".join(words) if text is None else text, places


def tokens_of_words(
    offsets: Sequence[tuple[int, int]], places: Sequence[tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    """Return (first, last) token of each word that has any. A token is of the first word that it has a letter of.

    Tokens of a byte-level BPE begin with the space before a word, or are nothing but a space: those are of no word.

    Args:
        offsets: (start, end) of each token, in characters.
        places: (start, end) of each word, in order.
    """
    ends = [end for _, end in places]
    found: dict[int, tuple[int, int]] = {}
    for token, (start, end) in enumerate(offsets):
        word = bisect_right(ends, start)  # the first that ends after the token begins
        while word < len(places) and places[word][0] == places[word][1]:  # an empty one
            word += 1
        if word < len(places) and places[word][0] < end:
            found[word] = (found[word][0] if word in found else token, token)
    return found


def _account(rows: Dataset, inputs: Dataset, layout: Layout) -> dict[str, Any]:
    """Return what was lost or rewritten on the way, in numbers, and said."""
    asked: dict[int, set[int]] = {}
    for row, numbers in zip(inputs["row"], inputs["numbers"], strict=True):
        asked.setdefault(row, set()).update(numbers)
    words = rows[layout.words]
    silent = sum(len(words[row]) - len(known) for row, known in asked.items())
    facts: dict[str, Any] = {"words": sum(map(len, words)), "words_without_tokens": silent, "said": []}
    if silent:
        facts["said"].append(
            f"{silent:,} of {facts['words']:,} words have no token in any input (cut off, or nothing is left of them "
            "when they are tokenized): they are answered with no span, and count in the scores"
        )
    if layout.tags is None or not layout.spans:
        return facts
    tags = list(all_tags(rows, layout.tags, layout.labels))
    seen = look((row_id, _bare(each, layout.scheme)) for row_id, each in tags)
    check_scheme(seen, layout.scheme, "these rows")
    spans = [spans_of(_bare(each, layout.scheme)) for _, each in tags]
    kept = sum(
        set(range(span.start, span.end)) <= asked.get(row, set()) for row, each in enumerate(spans) for span in each
    )
    facts |= {"spans": sum(map(len, spans)), "spans_encoded": kept}
    if kept < facts["spans"]:
        facts["said"].append(f"{facts['spans']:,} spans before encoding, {kept:,} with all their words after it")
    if layout.scheme is None and (said := rewriting(seen, facts["spans"])):
        facts["said"].append(said)
    return facts


def _bare(tags: list[str], scheme: Scheme | None) -> list[str]:
    return [tag if tag == "O" else f"I-{tag.removeprefix('I-')}" for tag in tags] if scheme == "IO" else tags
