"""The files of a foreign tokenizer: paths and ids within bounds, templates of bounded size, no text blown up.

What tokenizer.json says runs in Rust, out of Python's reach, so it is held to bounds before: each of its steps may make
a text longer by a factor, and the factors of all steps multiply.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.errors import UserError
from finetune.foreign.bounds import LABELS, LARGEST
from finetune.foreign.files import is_plain, read_object

TEMPLATE = 1 << 20  # characters of a chat template
BYTES = 1 << 27  # of tokenizer.json: the largest released have about 35 MB
PARTS = 64  # steps, and pieces of a template, in one section
DEEPEST = 12  # levels of nesting in a section
GROWTH = 1 << 10  # times as many bytes; Albert's NFKD and character map come to 363 by the bounds of each
LONGEST = 8_000  # characters of a regular expression
PREFIX = 64  # characters
WORD = 1_000  # characters that WordPiece takes for one word; it looks at the pieces of every length
SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
FORMS = {"NFC": 3, "NFD": 3, "NFKC": 11, "NFKD": 11, "Nmt": 3, "ByteLevel": 2}  # as many bytes at most (UAX 15)


def check_tokenizer_file(file: Path, option: str) -> None:
    """Refuse a tokenizer.json whose steps could make a text longer than GROWTH times, or that is out of bounds.

    Raises:
        UserError: it is, or a section is of another kind than the library writes.
    """
    held = read_object(file, BYTES)
    what = f"{option}: {file}"
    for name in (*SECTIONS, "model", "padding", "truncation"):
        if not isinstance(held.get(name), dict | None):
            raise UserError(f"{what}: {name} is {type(held[name]).__name__}, and should be an object.")
    growth = {name: _growth(held.get(name), f"{what}: {name}") for name in SECTIONS}
    for names in (SECTIONS[:3], SECTIONS[3:]):
        if math.prod(growth[name] for name in names) > GROWTH:
            raise UserError(
                f"{what}: its {' and '.join(name for name in names if growth[name] > 1)} can make a text more than "
                f"{GROWTH:,} times longer; such a tokenizer is not read."
            )
    model, padding = held.get("model") or {}, held.get("padding") or {}
    word = model.get("max_input_chars_per_word")
    if isinstance(word, int) and word > WORD:
        raise UserError(f"{what}: max_input_chars_per_word is {str(word)[:40]}, and at most {WORD:,} is believed.")
    strategy = padding.get("strategy")
    fixed = strategy.get("Fixed") if isinstance(strategy, dict) else None
    if any(isinstance(each, int) and each > LARGEST for each in (fixed, padding.get("pad_to_multiple_of"))):
        raise UserError(f"{what}: padding goes beyond {LARGEST:,} tokens.")
    added = held.get("added_tokens") or []
    if not isinstance(held.get("added_tokens"), list | None) or len(added) > LABELS:
        raise UserError(f"{what}: added_tokens should be a list of at most {LABELS:,} tokens.")
    for each in added:
        if isinstance(each, dict) and isinstance(each.get("id"), int) and each["id"] > LARGEST:
            raise UserError(f"{what}: added_tokens has the id {str(each['id'])[:40]}; ids end at {LARGEST:,}.")


def _growth(section: Any, what: str) -> int:
    """Return how many times longer a section can make a text, in bytes: the product of its steps."""
    total, met, settled = 1, 0, False
    for part in _parts(section, what):
        met += 1
        if met > PARTS:
            raise UserError(f"{what} has more than {PARTS} parts.")
        kind = part.get("type")
        if kind in ("NFC", "NFD", "NFKC", "NFKD", "Nmt"):  # one after another changes nothing
            total, settled = total * (1 if settled else FORMS[kind]), True
            continue
        grown = max(_replaced(part), _mapped(part, what), 2 if _is_byte_level(part) else 1)
        settled = settled and grown == 1
        total = min(total * grown, GROWTH + 1)
        prefix = part.get("prepend")
        if isinstance(prefix, str) and len(prefix) > PREFIX:
            raise UserError(f"{what}: Prepend has {len(prefix):,} characters, and at most {PREFIX} are believed.")
    return total


def _parts(section: Any, what: str) -> Iterator[dict[str, Any]]:
    """Yield every object of a section but patterns, in order: a type may be left out, and lists have many names."""
    waiting: list[tuple[Any, int]] = [(section, 0)]
    while waiting:
        held, depth = waiting.pop()
        if depth > DEEPEST:
            raise UserError(f"{what} is nested more than {DEEPEST} levels deep.")
        if isinstance(held, dict):
            _check_pattern(held.get("pattern"), what)
            yield held
            inner = [each for name, each in held.items() if name not in ("pattern", "special_tokens")]
        else:
            inner = held if isinstance(held, list) else []
        waiting.extend((each, depth + 1) for each in reversed(inner) if isinstance(each, dict | list))


def _check_pattern(pattern: Any, what: str) -> None:
    said = pattern.get("Regex") if isinstance(pattern, dict) else None
    if isinstance(said, str) and len(said) > LONGEST:
        raise UserError(f"{what}: a pattern has {len(said):,} characters, and at most {LONGEST:,} are read.")


def _replaced(part: dict[str, Any]) -> int:
    """Return how many times longer a Replace makes a text; 1 for any other part."""
    content, pattern = part.get("content"), part.get("pattern")
    if not isinstance(content, str) or pattern is None:
        return 1
    said = pattern.get("String") if isinstance(pattern, dict) else pattern
    least = len(said.encode()) if isinstance(said, str) else 1  # an expression may match a single letter
    return max(math.ceil(len(content.encode()) / max(least, 1)), 1)


def _mapped(part: dict[str, Any], what: str) -> int:
    """Return how many bytes a character map puts in the place of a character at most; 1 for any other part."""
    held = part.get("precompiled_charsmap")
    if held is None:
        return 1
    try:
        content = base64.b64decode(held, validate=True)
    except (ValueError, TypeError):
        raise UserError(f"{what}: precompiled_charsmap is not in base64; the file is damaged.") from None
    trie = 4 + int.from_bytes(
        content[:4], "little"
    )  # its length stands before it, the texts end in NUL (SentencePiece)
    return max([1, *map(len, content[trie:].split(b"\0"))])


def _is_byte_level(part: dict[str, Any]) -> bool:
    return part.get("type") == "ByteLevel" or ("type" not in part and "trim_offsets" in part)


def check_tokenizer(file: Path, option: str) -> None:
    """Refuse a tokenizer_config.json that names files outside its folder, ids beyond bounds, or odd chat templates."""
    held = read_object(file)
    for name, value in held.items():
        if name.endswith(("_file", "_files")) and value is not None:
            for each in value if isinstance(value, list) else [value]:
                if not is_plain(each):
                    said = str(each)[:120]
                    raise UserError(f"{option}: {file} names {name} {said!r}, which does not lie beside it.")
    added = held.get("added_tokens_decoder", {})
    if not isinstance(added, dict) or len(added) > LABELS:
        raise UserError(f"{option}: {file}: added_tokens_decoder should be an object of at most {LABELS:,} tokens.")
    for number in added:
        if not re.fullmatch(r"\d{1,8}", number) or int(number) > LARGEST:
            raise UserError(
                f"{option}: {file}: added_tokens_decoder has the id {number[:40]!r}; ids end at {LARGEST:,}."
            )
    for name, template in _templates(held.get("chat_template"), file, option):
        if not is_plain(name):
            raise UserError(f"{option}: {file}: a chat template has the name {str(name)[:120]!r}, which is a path.")
        if not isinstance(template, str) or len(template) > TEMPLATE:
            raise UserError(f"{option}: {file}: a chat template is a text of at most {TEMPLATE:,} characters.")


def check_template(file: Path, option: str) -> None:
    """Refuse a chat template that is a file of too many characters."""
    if file.stat().st_size > TEMPLATE:
        raise UserError(f"{option}: {file} has {file.stat().st_size:,} bytes, and a template at most {TEMPLATE:,}.")


def tokenizer_files(config: Path | None) -> list[str]:
    """Return the names under which a tokenizer.json may be read: those for other versions of transformers too."""
    others = read_object(config).get("fast_tokenizer_files") if config is not None else None
    return list(dict.fromkeys(["tokenizer.json", *(others if isinstance(others, list) else [])]))


def _templates(held: Any, file: Path, option: str) -> Iterator[tuple[Any, Any]]:
    if held is None or isinstance(held, str):
        yield "default", held or ""
    elif isinstance(held, dict):
        yield from held.items()
    elif isinstance(held, list):
        for each in held:
            if not isinstance(each, dict):
                raise UserError(f"{option}: {file}: chat_template should list objects with a name and a template.")
            yield each.get("name"), each.get("template")
    else:
        raise UserError(f"{option}: {file}: chat_template is {type(held).__name__}, and should be a text.")
