"""Canaries: rows with a random secret that are planted among the training rows, each so many times.

Carlini et al. 2019, "The Secret Sharer" (arXiv:1802.08232), section 4. Every canary has a name of its own, so that no
two share what stands before their secret.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.task import Processor, Task

KINDS = ("causal-lm", "chat", "masked-lm", "seq2seq")  # tasks that learn to write what they are shown
TIMES = (0, 1, 4, 16)  # how often a canary stands in the training rows; those of 0 are the control
CANDIDATES = 1000  # secrets that a canary's own is ranked among, itself one of them
DIGITS = 6  # of a secret
WORDS = 4  # of a secret, where a tokenizer knows no digits
COMMONEST = 60  # words of the rows that secrets are made of there


@dataclass(frozen=True)
class Canary:
    """A secret, what stands before it, and the other secrets that it is ranked among."""

    before: str
    secret: str
    others: tuple[str, ...]
    times: int


def not_planted(task: Task) -> str:
    """Return why no secret can be planted among a task's rows; "" where one can."""
    if task.kind not in KINDS:
        return f"{task.kind} does not learn to write what it is shown"
    if getattr(task, "next_sentence", False):
        return "task.next_sentence learns from documents, and a secret is one sentence"
    return ""


def made(processor: Processor, texts: Iterable[str], each: int, seed: int) -> list[Canary]:
    """Return `each` canaries for every number of TIMES; secrets are digits, or words of the texts.

    Raises:
        UserError: the tokenizer cannot tell secrets apart.
    """
    random = np.random.default_rng([seed, 4242])
    count = each * len(TIMES)
    if _told_apart(processor, ["482913", "482931", "017265"]):
        names = _names(random, count)
        befores = [f"The code of {name} is" for name in names]
        parts: Sequence[str] = [str(digit) for digit in range(10)]
        size, joint = DIGITS, ""
    else:
        counts = Counter(word for text in texts for word in text.split())
        parts = [word for word, _ in counts.most_common(4 * COMMONEST) if _known(processor, word)][:COMMONEST]
        if len(parts) ** WORDS < 20 * CANDIDATES or not _told_apart(processor, parts):
            raise UserError("audit: this tokenizer cannot tell random secrets apart, and no canary can be planted.")
        size, joint = WORDS, " "
        befores = [" ".join(parts[at] for at in word) for word in _distinct(random, len(parts), 3, count)]
    canaries = []
    for number, before in enumerate(befores):
        secret, *others = (
            joint.join(parts[at] for at in drawn) for drawn in _distinct(random, len(parts), size, CANDIDATES)
        )
        canaries.append(Canary(before, secret, tuple(others), TIMES[number % len(TIMES)]))
    return canaries


def planted(rows: Dataset, task: Task, canaries: Sequence[Canary], seed: int) -> Dataset:
    """Return the rows in their order with the canaries at random places, each as often as its `times`."""
    from datasets import concatenate_datasets

    texts = [
        (f"canary:{number + 1}~{copy + 1}", canary.before, canary.secret)  # each a row of its own to private training
        for number, canary in enumerate(canaries)
        for copy in range(canary.times)
    ]
    more = as_rows(rows, task, texts)
    places = np.sort(np.random.default_rng([seed, 4243]).integers(0, len(rows) + 1, len(more)))
    mixed = np.random.default_rng([seed, 4244]).permutation(len(more))
    order = np.insert(np.arange(len(rows)), places, len(rows) + mixed)
    return concatenate_datasets([rows, more]).select(order.tolist())


def as_rows(rows: Dataset, task: Task, texts: Sequence[tuple[str, str, str]]) -> Dataset:
    """Return (row_id, before, secret) as rows with the columns of `rows`, as the task reads them."""
    from datasets import Dataset as Table

    columns = task.columns()
    table: dict[str, list[Any]] = {name: [None] * len(texts) for name in rows.column_names}
    table["row_id"] = [row_id for row_id, _, _ in texts]
    text = columns.texts[0]
    if columns.target is not None:
        table[text] = [before for _, before, _ in texts]
        table[columns.target] = [secret for _, _, secret in texts]
    elif columns.parts is not None:
        table[text] = [columns.parts.make({"prompt": before, "completion": secret}) for _, before, secret in texts]
    else:
        table[text] = [f"{before} {secret}" for _, before, secret in texts]
    return Table.from_dict(table, features=rows.features)


def _names(random: np.random.Generator, count: int) -> list[str]:
    """Return different names of five letters."""
    consonants, vowels = list("bdfgklmnprstvz"), list("aeiou")
    found: dict[str, None] = {}
    while len(found) < count:
        letters = [random.choice(consonants if at % 2 == 0 else vowels) for at in range(5)]
        found["".join(letters).capitalize()] = None
    return list(found)


def _distinct(random: np.random.Generator, letters: int, size: int, count: int) -> list[tuple[int, ...]]:
    """Return different draws of `size` letters, in the order in which they were drawn."""
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found |= dict.fromkeys(map(tuple, random.integers(0, letters, (count, size)).tolist()))
    return list(found)[:count]


def _ids(processor: Processor, text: str) -> list[int]:
    from finetune.tasks.two_tokenizers import decoder_tokenizer

    return list(decoder_tokenizer(processor)(text, add_special_tokens=False)["input_ids"])


def _known(processor: Processor, text: str) -> bool:
    return getattr(processor, "unk_token_id", None) not in _ids(processor, text)


def _told_apart(processor: Processor, texts: Sequence[str]) -> bool:
    encoded = [tuple(_ids(processor, text)) for text in texts]
    return all(_known(processor, text) for text in texts) and len(set(encoded)) == len(encoded)
