"""Which texts stay: by length, by what stands in them, by language."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from finetune.editing.texts import read_words
from finetune.errors import UserError, did_you_mean

LENGTHS = ("min_characters", "max_characters", "min_words", "max_words")
PATIENCE = 1.0  # seconds that a pattern may take for a text


def of_length(told: Any, option: str) -> Callable[[str], bool]:
    """Return whether a text has between so many characters, and words between spaces."""
    if not isinstance(told, dict) or not told:
        raise UserError(f"{option} needs one of {', '.join(LENGTHS)}, as {{min_words: 3}}.")
    for name, value in told.items():
        if name not in LENGTHS:
            raise UserError(
                f"{option}.{name} is not an option.{did_you_mean(name, LENGTHS)} Known: {', '.join(LENGTHS)}."
            )
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{option}.{name}: {value!r} is not a whole number from 1 on.")
    for what in ("characters", "words"):
        least, most = told.get(f"min_{what}", 0), told.get(f"max_{what}", 10**9)
        if least > most:
            raise UserError(f"{option}.min_{what}: {least} is more than max_{what} {most}: no text would stay.")

    def fits(text: str) -> bool:
        counts = {"characters": len(text), "words": len(text.split())}
        return all(
            told.get(f"min_{what}", 0) <= count <= told.get(f"max_{what}", count) for what, count in counts.items()
        )

    return fits


def without(told: Any, option: str) -> Callable[[str], bool]:
    """Return whether a text holds none of the words (whole, whatever their case) and meets none of the patterns.

    Args:
        told: {words: […] or {file: FILE}, patterns: […]}, one of them or both.
        option: its name in the recipe.
    """
    known = ("words", "patterns")
    if not isinstance(told, dict) or not told:
        raise UserError(f"{option} needs words or patterns, as {{words: [spam]}}.")
    for name in told:
        if name not in known:
            raise UserError(f"{option}.{name} is not an option: it has words and patterns.{did_you_mean(name, known)}")
    words = read_words(told["words"], f"{option}.words") if "words" in told else []
    longest_first = sorted((re.escape(word.casefold()) for word in words), key=len, reverse=True)
    named = re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)")
    listed = _listed(told.get("patterns", []), f"{option}.patterns")
    patterns = [_compiled(each, f"{option}.patterns") for each in listed]

    def passes(text: str) -> bool:
        if words and named.search(text.casefold()):
            return False
        return not any(_meets(pattern, text, option) for pattern in patterns)

    return passes


def _listed(told: Any, option: str) -> list[str]:
    if not isinstance(told, list) or not all(isinstance(each, str) for each in told):
        raise UserError(f"{option}: {told!r} is no list of patterns.")
    return told


def _compiled(pattern: str, option: str) -> Any:
    import regex  # unlike re, it stops when a time is over

    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise UserError(f"{option}: {pattern!r} is no regular expression: {error}.") from None


def _meets(pattern: Any, text: str, option: str) -> bool:
    try:
        return pattern.search(text, timeout=PATIENCE) is not None
    except TimeoutError:
        where = f"one text of {len(text)} characters ({text[:30]!r} …)"
        raise UserError(
            f"{option}.patterns: {pattern.pattern!r} takes more than {PATIENCE:g} s for {where}; "
            "write it without repeats inside repeats."
        ) from None


def of_language(told: Any, option: str) -> Callable[[str], bool]:
    """Return whether a text is in one of the languages, as py3langid guesses (Lui & Baldwin 2012, P12-3005)."""
    asked = [told] if isinstance(told, str) else told
    if not isinstance(asked, list) or not asked:
        raise UserError(f"{option}: {told!r} is no list of languages; give codes, as [en, de].")
    if find_spec("py3langid") is None:
        raise UserError(f'{option} needs py3langid: pip install "finetune[language]".')

    def fits(text: str) -> bool:
        return str(_guesser(tuple(asked), option).classify(text)[0]) in asked

    return fits


@lru_cache(maxsize=1)
def _guesser(asked: tuple[str, ...], option: str) -> Any:
    """Return the guesser of languages; UserError for a code that it does not know."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    guesser = LanguageIdentifier.from_model_file(MODEL_FILE)
    known = sorted(guesser.labels)
    for code in asked:
        if code not in known:
            raise UserError(f"{option}: {code} is not a language that py3langid knows: {', '.join(known)}.")
    return guesser
