"""What a foreign configuration may ask for: sizes within bounds, no code, no path out of its folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.errors import UserError
from finetune.foreign.files import is_plain, read_object

DEEPEST = 16  # levels of nesting
LAYERS = 512  # the deepest released models have about 130
LABELS = 1 << 20
LARGEST = 1 << 24  # of a vocabulary, a width, a number of positions: the longest context released has 10 million
PIXELS = 1 << 14
TEMPLATE = 1 << 20  # characters of a chat template
COUNTED = (  # the end of a field's name, and the most that it may be
    (re.compile(r"(?:layers?|blocks|groups|stages|depths?|stacks)$"), LAYERS),
    (re.compile(r"(?:labels|frequency|vectors)$"), LABELS),
    (re.compile(r"(?:height|width|edge|image_size|patch_size)$"), PIXELS),
    (re.compile(r"(?:heads?|experts|beams|beam_groups|return_sequences|virtual_tokens|kernel|kernel_size)$"), 1 << 14),
    (re.compile(r"(?:^|_)(?:size|sizes|dims?|hidden|positions?|embeddings?|length|channels|buckets|inner|embd|ctx|rank"
                r"|tokens|model|ff|kv|in|out|window)$"), LARGEST),
)  # fmt: skip
NO_SIZES = re.compile(r"token_ids?$|theta|(?:^|_)base$|seed|model_max_length")
ATTENTION = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")


def check_sizes(held: dict[str, Any], file: Path, option: str) -> None:
    """Refuse sizes beyond all reason, before anything is allocated by them; the line names the field and the bound."""
    for name, value in _fields(held, file):
        if isinstance(value, bool) or not isinstance(value, int) or NO_SIZES.search(name):
            continue
        most = next((most for ending, most in COUNTED if ending.search(name)), None)
        if most is not None and value > most:
            raise UserError(f"{option}: {file} asks for {name} {str(value)[:40]}, and at most {most:,} is believed.")


def check_config(file: Path, option: str, trusted: bool) -> None:
    """Refuse a config.json that asks for sizes beyond bounds, or for code of the Hub's to compute attention with."""
    held = read_object(file)
    check_sizes(held, file, option)
    if isinstance(held.get("id2label"), dict) and len(held["id2label"]) > LABELS:
        raise UserError(
            f"{option}: {file} names {len(held['id2label']):,} labels, and at most {LABELS:,} are believed."
        )
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


def check_tokenizer(file: Path, option: str) -> None:
    """Refuse a tokenizer_config.json that names files outside its folder, ids beyond bounds, or odd chat templates."""
    held = read_object(file)
    for name, value in held.items():
        if name.endswith(("_file", "_files")) and isinstance(value, str) and not is_plain(value):
            raise UserError(f"{option}: {file} names {name} {value[:120]!r}, which does not lie beside it.")
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


def check_templates(folder: Path, option: str) -> None:
    """Refuse chat templates that are files of too many characters."""
    for file in [folder / "chat_template.jinja", *folder.glob("additional_chat_templates/*.jinja")]:
        if file.is_file() and file.stat().st_size > TEMPLATE:
            raise UserError(f"{option}: {file} has {file.stat().st_size:,} bytes, and a template at most {TEMPLATE:,}.")


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


def _fields(held: Any, file: Path, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield every (name, value) of nested objects; the elements of a list have the list's name."""
    if depth > DEEPEST:
        raise UserError(f"{file} is nested more than {DEEPEST} levels deep, which no configuration is.")
    if isinstance(held, dict):
        for inner, value in held.items():
            yield from _fields(value, file, inner, depth + 1)
    elif isinstance(held, list):
        for value in held:
            yield from _fields(value, file, name, depth + 1)
    else:
        yield name, held
