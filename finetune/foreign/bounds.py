"""What a foreign configuration may ask for: sizes within bounds, no code, no path out of its folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from finetune.errors import UserError
from finetune.foreign.files import read_object

DEEPEST = 16  # levels of nesting
LAYERS = 512  # the deepest released models have about 130
LABELS = 1 << 20
LARGEST = 1 << 24  # of a vocabulary, a width, a number of positions: the longest context released has 10 million
PIXELS = 1 << 14
VALUES = 1 << 17  # numbers and texts, labels aside
NAME = 1 << 10  # characters of a field's name
COUNTED = (  # the end of a field's name, and the most that it may be
    (re.compile(r"(?:layers?|blocks|groups|stages|depths?|stacks)$"), LAYERS),
    (re.compile(r"(?:labels|frequency|vectors)$"), LABELS),
    (re.compile(r"(?:height|width|edge|image_size|patch_size)$"), PIXELS),
    (re.compile(r"(?:heads?|experts|beams|beam_groups|return_sequences|virtual_tokens|kernel|kernel_size)$"), 1 << 14),
    (re.compile(r"(?:^|_)(?:size|sizes|dims?|hidden|positions?|embeddings?|length|channels|buckets|inner|embd|ctx|rank"
                r"|tokens|model|ff|kv|in|out|window)$"), LARGEST),
)  # fmt: skip
LABELLED = ("id2label", "label2id")  # may be many, and called anything
NO_SIZES = re.compile(r"token_ids?$|theta|(?:^|_)base$|seed|model_max_length")
ATTENTION = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")


def check_sizes(held: dict[str, Any], file: Path, option: str) -> None:
    """Refuse sizes beyond all reason, before anything is allocated by them; the line names the field and the bound."""
    for name, value in _fields(held, file):
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        most = _bound(name)
        if most is not None and value > most:
            raise UserError(f"{option}: {file} asks for {name} {str(value)[:40]}, and at most {most:,} is believed.")


@lru_cache(maxsize=4096)
def _bound(name: str) -> int | None:
    if NO_SIZES.search(name):
        return None
    return next((most for ending, most in COUNTED if ending.search(name)), None)


def check_config(file: Path, option: str, trusted: bool) -> None:
    """Refuse a config.json that asks for sizes beyond bounds, or for code of the Hub's to compute attention with."""
    held = read_object(file)
    check_sizes(held, file, option)
    for name, value in _fields(held, file):
        if not trusted and name in ATTENTION and isinstance(value, str) and re.search(r"[/:|]", value):
            raise UserError(
                f"{option}: {file} asks for {name} {value[:80]!r}, which is code from the Hub; it is not fetched. "
                "Take that line out."
            )


def check_generation(file: Path, option: str) -> None:
    """Refuse a generation_config.json with sizes beyond bounds."""
    held = read_object(file)
    check_sizes(held, file, option)
    for name in ("max_length", "max_new_tokens", "min_length", "min_new_tokens"):
        value = held.get(name)
        if isinstance(value, int) and value > LARGEST:
            raise UserError(f"{option}: {file} asks for {name} {value}, and at most {LARGEST:,} is believed.")
    if isinstance(held.get("num_beams"), int) and held["num_beams"] > 256:
        raise UserError(f"{option}: {file} asks for num_beams {held['num_beams']}, and at most 256 is believed.")


def _fields(held: dict[str, Any], file: Path) -> Iterator[tuple[str, Any]]:
    """Yield every (name, value) of nested objects; the elements of a list have the list's name, labels are left out.

    Raises:
        UserError: there are too many of them, they are nested too deep, or a name is too long.
    """
    waiting: list[tuple[str, Any, int]] = [("", held, 0)]
    met = 0
    while waiting:
        name, value, depth = waiting.pop()
        if depth > DEEPEST:
            raise UserError(f"{file} is nested more than {DEEPEST} levels deep, which no configuration is.")
        if len(name) > NAME:
            raise UserError(f"{file} has the name {name[:40]!r}…, which is longer than {NAME:,} characters.")
        if not isinstance(value, dict | list):
            yield name, value
            continue
        if name in LABELLED and isinstance(value, dict) and not any(isinstance(v, dict | list) for v in value.values()):
            if len(value) > LABELS:
                raise UserError(f"{file} names {len(value):,} labels, and at most {LABELS:,} are believed.")
            continue
        met += len(value)
        if met > VALUES:
            raise UserError(f"{file} holds more than {VALUES:,} values, which no configuration does.")
        inner = value.items() if isinstance(value, dict) else ((name, each) for each in value)
        waiting.extend((key, each, depth + 1) for key, each in inner)
