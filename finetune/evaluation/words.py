"""What a word is when texts are compared: between spaces, or a character of a script that has no spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

Cut = Literal["13a", "intl", "zh", "char"]  # the names of sacreBLEU's tokenizers
WORD = re.compile(r"[^\W_]+")
SCRIPTS = {"CJK": "han", "HIRAGANA": "kana", "KATAKANA": "kana", "THAI": "unspaced", "LAO": "unspaced",
           "KHMER": "unspaced", "MYANMAR": "unspaced"}  # fmt: skip
LETTERS = 100_000  # are looked at to tell the script


def words(text: str, cut: Cut = "13a") -> list[str]:
    """Return the words of a text in lower case, without punctuation; a character each of scripts without spaces.

    For text in ASCII that is what ROUGE's own tokenizer takes for words; that one knows no other letters.

    Args:
        text: to be cut.
        cut: "char" cuts every word into its characters; the others those of unspaced scripts alone.
    """
    found = WORD.findall(text.lower())
    if cut == "char":
        return [letter for word in found for letter in word]
    return [part for word in found for part in _parts(word)]


def _parts(word: str) -> list[str]:
    if word.isascii():
        return [word]
    parts, joined = [], ""
    for letter in word:
        if script_of(letter) is None:
            joined += letter
            continue
        parts += [joined, letter] if joined else [letter]
        joined = ""
    return [*parts, joined] if joined else parts


def script_of(letter: str) -> str | None:
    """Return "han", "kana" or "unspaced" for a letter of a script that is written without spaces, else None."""
    if letter.isascii():
        return None
    return SCRIPTS.get(unicodedata.name(letter, "").split(" ")[0])


def cut_for(texts: Iterable[str]) -> Cut:
    """Return how texts are cut into words for BLEU: zh for Chinese, char for other unspaced scripts, else 13a.

    Decided by more than a third of the letters, of the first 100,000.
    """
    counts = {"han": 0, "kana": 0, "unspaced": 0}
    seen = 0
    for text in texts:
        for letter in filter(str.isalpha, text):
            script = script_of(letter)
            if script is not None:
                counts[script] += 1
            seen += 1
        if seen >= LETTERS:
            break
    if 3 * sum(counts.values()) <= seen:
        return "13a"
    return "zh" if counts["han"] > 3 * (counts["kana"] + counts["unspaced"]) else "char"
