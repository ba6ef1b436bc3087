"""Texts that are made of texts: words left out, changed places, synonyms; or what a model writes.

Wei & Zou 2019, "EDA" (arXiv:1901.11196): four operations on the words between spaces, one of them a copy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import UserError

OPERATIONS = ("delete", "swap", "replace", "insert")
BY_MODELS = ("contextual", "translate")
NEED_SYNONYMS = ("replace", "insert")
Synonyms = Mapping[str, tuple[str, ...]]  # of a word in lower case


@dataclass(frozen=True)
class Rewriter:
    """An operation that needs a model: from texts, and a seed for each, to texts."""

    write: Callable[[list[str], list[str]], list[str]]
    marks: dict[str, dict[str, Any]]  # fingerprints of the models, by their names in the recipe


def drawn(shares: Mapping[str, float], seed: str) -> tuple[str, random.Random]:
    """Return the operation of a copy, one of those whose share is above 0, and what goes on drawing for it."""
    chance = random.Random(seed)
    return chance.choice([each for each in (*OPERATIONS, *BY_MODELS) if shares.get(each, 0) > 0]), chance


def varied(text: str, shares: Mapping[str, float], synonyms: Synonyms, seed: str) -> str:
    """Return a text with one of EDA's operations done to it; the text itself where nothing could be done.

    Args:
        text: its words stand between spaces.
        shares: of the words that each operation is done to; at least one word. One of those above 0 is drawn.
        synonyms: of words in lower case.
        seed: the same one, with the same text, makes the same.
    """
    name, chance = drawn(shares, seed)
    words = text.split()
    times = max(1, round(shares[name] * len(words)))
    made = DO[name](words, times, synonyms, chance)
    return text if made == words or not made else " ".join(made)


def _delete(words: list[str], times: int, synonyms: Synonyms, chance: random.Random) -> list[str]:
    gone = set(chance.sample(range(len(words)), min(times, len(words) - 1)))  # one word stays
    return [word for place, word in enumerate(words) if place not in gone]


def _swap(words: list[str], times: int, synonyms: Synonyms, chance: random.Random) -> list[str]:
    made = list(words)
    for _ in range(times if len(words) > 1 else 0):
        one, other = chance.sample(range(len(made)), 2)
        made[one], made[other] = made[other], made[one]
    return made


def _replace(words: list[str], times: int, synonyms: Synonyms, chance: random.Random) -> list[str]:
    made = list(words)
    places = [place for place, word in enumerate(words) if core(word)[1].lower() in synonyms]
    for place in chance.sample(places, min(times, len(places))):
        before, word, after = core(words[place])
        made[place] = before + cased(chance.choice(synonyms[word.lower()]), word) + after
    return made


def _insert(words: list[str], times: int, synonyms: Synonyms, chance: random.Random) -> list[str]:
    made = list(words)
    known = [word for word in (core(word)[1].lower() for word in words) if word in synonyms]
    for _ in range(times if known else 0):
        made.insert(chance.randint(0, len(made)), chance.choice(synonyms[chance.choice(known)]))
    return made


DO: dict[str, Callable[[list[str], int, Synonyms, random.Random], list[str]]] = {
    "delete": _delete, "swap": _swap, "replace": _replace, "insert": _insert,
}  # fmt: skip


def core(word: str) -> tuple[str, str, str]:
    """Return the signs before a word, the word, and the signs after it."""
    start, end = 0, len(word)
    while start < end and not word[start].isalnum():
        start += 1
    while end > start and not word[end - 1].isalnum():
        end -= 1
    return word[:start], word[start:end], word[end:]


def cased(word: str, like: str) -> str:
    """Return a word with the capitals of another."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def read_thesaurus(name: str) -> Synonyms:
    """Return the synonyms of words: of "wordnet" as nltk has it, of a folder with WordNet's database, or of a file.

    A line of a file holds words that mean the same, with commas between them.

    Raises:
        UserError: what is named is not there or cannot be read, or a line holds fewer than two words.
    """
    if name == WORDNET or Path(name).is_dir():
        from finetune.editing.wordnet import WordNet

        return WordNet(name)
    return _of_file(Path(name))


WORDNET = "wordnet"


def _of_file(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"data.augment.thesaurus: {path} cannot be read: {why}.") from None
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        words = [word.strip() for word in line.split(",") if word.strip()]
        if len(words) == 1:
            raise UserError(
                f"{path}:{number}: {words[0]!r} stands alone; a line holds words that mean the same, as: big, large"
            )
        for word in words:
            found.setdefault(word.lower(), []).extend(other for other in words if other != word)
    if not found:
        raise UserError(f"data.augment.thesaurus: {path} holds no words.")
    return {word: tuple(dict.fromkeys(others)) for word, others in found.items()}
