"""Texts that are made of texts: words left out, changed places, and synonyms.

Wei & Zou 2019, "EDA" (arXiv:1901.11196): four operations on the words between spaces, one of them a copy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from finetune.errors import UserError

OPERATIONS = ("delete", "swap", "replace", "insert")
NEED_SYNONYMS = ("replace", "insert")
Synonyms = Mapping[str, tuple[str, ...]]  # of a word in lower case


def varied(text: str, shares: Mapping[str, float], synonyms: Synonyms, seed: str) -> str:
    """Return a text with one operation done to it; the text itself where nothing could be done.

    Args:
        text: its words stand between spaces.
        shares: of the words that each operation is done to; at least one word. One of those above 0 is drawn.
        synonyms: of words in lower case.
        seed: the same one, with the same text, makes the same.
    """
    chance = random.Random(seed)
    name = chance.choice([each for each in OPERATIONS if shares.get(each, 0) > 0])
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
    places = [place for place, word in enumerate(words) if _core(word)[1].lower() in synonyms]
    for place in chance.sample(places, min(times, len(places))):
        before, core, after = _core(words[place])
        made[place] = before + _cased(chance.choice(synonyms[core.lower()]), core) + after
    return made


def _insert(words: list[str], times: int, synonyms: Synonyms, chance: random.Random) -> list[str]:
    made = list(words)
    known = [core for core in (_core(word)[1].lower() for word in words) if core in synonyms]
    for _ in range(times if known else 0):
        made.insert(chance.randint(0, len(made)), chance.choice(synonyms[chance.choice(known)]))
    return made


DO: dict[str, Callable[[list[str], int, Synonyms, random.Random], list[str]]] = {
    "delete": _delete, "swap": _swap, "replace": _replace, "insert": _insert,
}  # fmt: skip


def _core(word: str) -> tuple[str, str, str]:
    """Return the signs before a word, the word, and the signs after it."""
    start, end = 0, len(word)
    while start < end and not word[start].isalnum():
        start += 1
    while end > start and not word[end - 1].isalnum():
        end -= 1
    return word[:start], word[start:end], word[end:]


def _cased(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def read_thesaurus(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the synonyms of each word of a file: a line holds words that mean the same, with commas between them.

    Raises:
        UserError: the file cannot be read, or a line holds fewer than two words.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
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
