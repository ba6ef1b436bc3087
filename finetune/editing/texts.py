"""Edits of a text: Unicode forms, control characters, HTML, white space, stop words."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from finetune.errors import UserError, did_you_mean

FORMS = ("NFC", "NFKC")
# Marks that show nothing: zero-width space, marks and overrides of direction, soft hyphen, word joiner, byte order
# mark. The zero-width joiners stay: emoji and the scripts of India are spelled with them.
UNSEEN = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Characters of Windows-1252 that were read as Latin-1: "it\x92s" means "it’s". Browsers mend them in the same way.
MEANT = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
# With its semicolon: "R&D" and "?a=1&copy=2" stay.
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
BLOCKS = """
    address article aside blockquote br dd div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6
    header hr li main nav ol option p pre section table tbody tfoot thead tr ul
"""
INLINE = """
    a abbr acronym audio b base basefont bdi bdo big body button canvas caption center cite code col colgroup
    data datalist del details dfn dialog dir em embed font frame frameset head html i iframe img input ins kbd
    label legend link map mark meta meter noframes noscript object optgroup output param picture progress q rp
    rt ruby s samp search select slot small source span strike strong sub summary sup svg td template textarea
    th time title track tt u var video wbr script style doctype
"""
CELLS = frozenset(("td", "th"))  # of one row of a table: a space between them
LINES, TAGS = frozenset(BLOCKS.split()), frozenset(INLINE.split())
# No text stands in them.
UNSPOKEN = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in ("script", "style")}
TAG = re.compile(
    r"<(?P<close>[/!]?)(?P<name>[A-Za-z][A-Za-z0-9]{0,20})(?:[\s/](?:\"[^\"]*\"|'[^']*'|[^<>\"']){0,2000})?>"
)


def normalizer(told: Any, option: str) -> Callable[[str], str]:
    """Return the function that brings a text into a form of Unicode: NFC (composed), or NFKC (and no wide letters)."""
    form = "NFC" if told is None else told
    if form not in FORMS:
        raise UserError(f"{option}: {form!r} is not a form here; give NFC or NFKC.{did_you_mean(str(form), FORMS)}")
    known = cast("Literal['NFC', 'NFKC']", form)

    def normalized(text: str) -> str:
        return text if text.isascii() else unicodedata.normalize(known, text)

    return normalized


def without_control(text: str) -> str:
    """Return a text without control characters and marks that show nothing; ends of lines become one newline.

    Those of them that Windows-1252 has letters and quotation marks for become these.
    """
    lined = text.replace("\r\n", "\n").replace("\r", "\n").translate(MEANT)
    return UNSEEN.sub("", CONTROL.sub("", lined))


def single_spaced(text: str) -> str:
    """Return a text with one space for a run of white space, at most one empty line, and none at its ends."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def without_html(text: str) -> str:
    """Return a text without HTML's own tags and comments, scripts and styles; entities become their characters.

    A tag that HTML does not know is text ("a <b and c> d" is a comparison); a block becomes a line of its own.
    """
    if "<" in text:
        text = "".join(_shown(text)).strip("\n")
    return ENTITY.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text


def _shown(text: str) -> list[str]:
    """Return the parts of a text that a browser would show.

    Not by html.parser: of a text with many open tags that one takes a time that grows with the square of its length.
    """
    parts: list[str] = []
    endless: set[str] = set()  # names whose end was not found, and is not looked for again
    at, last_comment = 0, text.rfind("-->")
    while (start := text.find("<", at)) >= 0:
        parts += [text[at:start]] if start > at else []
        found = TAG.match(text, start)
        if text.startswith("<!--", start) and start < last_comment:
            at = text.find("-->", start) + 3
        elif found is None or (name := found["name"].lower()) not in LINES | TAGS:
            parts.append("<")
            at = start + 1
        else:
            if name in LINES and not "".join(parts[-2:]).endswith("\n"):
                parts.append("\n")
            if name in CELLS and not found["close"] and parts and not parts[-1][-1].isspace():
                parts.append(" ")
            unspoken = name in UNSPOKEN and name not in endless and not found["close"]
            ends = UNSPOKEN[name].search(text, found.end()) if unspoken else None
            if unspoken and ends is None:
                endless.add(name)
            at = ends.end() if ends else found.end()
    return [*parts, text[at:]]


def without_words(told: Any, option: str) -> Callable[[str], str]:
    """Return the function that leaves words out of a text, whatever their case.

    Args:
        told: "english" (scikit-learn's list of 318 words), a list of words, or {file: FILE} with one a line.
        option: its name in the recipe.
    """
    english = told is None or told == "english"
    given = () if english else read_words(told, option)
    words = {each.casefold() for each in given}
    word = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

    def left(text: str) -> str:
        if english and not words:
            words.update(stop_words())
        kept = word.sub(lambda found: "" if found[0].casefold() in words else found[0], text)
        return kept if kept == text else re.sub(r"[^\S\n]+", " ", kept).strip()

    return left


def stop_words() -> frozenset[str]:
    """Return English words that say little: scikit-learn's list."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def read_words(told: Any, option: str) -> list[str]:
    """Return words or phrases that a recipe lists, or names a file of; UserError where there are none."""
    if isinstance(told, dict) and set(told) == {"file"}:
        path = Path(str(told["file"]))
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{option}.file: {path} cannot be read: {getattr(error, 'strerror', None) or error}."
            ) from None
        told = [line.strip() for line in lines if line.strip()]
    if not isinstance(told, list) or not told or not all(isinstance(each, str) and each.strip() for each in told):
        raise UserError(f"{option}: {told!r} is no list of words; give words, or {{file: FILE}} with one a line.")
    return told
