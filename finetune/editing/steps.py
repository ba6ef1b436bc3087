"""The steps of `data.clean` by name. A new one is a function in this room and a line in STEPS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.editing import filters, presidio, private, texts
from finetune.errors import UserError, did_you_mean

OPTION = "data.clean"


@dataclass(frozen=True)
class Step:
    """One step of cleaning: it edits a text, or says whether a row may stay."""

    name: str
    edit: Callable[[str], str] | None = None
    keep: Callable[[str], bool] | None = None
    shows_before: bool = True  # examples may show what was there; what was scrubbed is not written down again
    of_labels: bool = False  # makes sense where a label is learned, not where text is written


def plan(given: Sequence[str | Mapping[str, Any]]) -> tuple[Step, ...]:
    """Return the steps of a recipe's `data.clean`, in its order.

    Each item is a name ("html"), or a name with what it is told ({scrub: [email, phone]}).

    Raises:
        UserError: a name or an option is not known, a pattern is none, a file of words is not there.
    """
    return tuple(_step(item, f"{OPTION}.{number}") for number, item in enumerate(given))


def with_words(given: Sequence[str | Mapping[str, Any]]) -> list[str | dict[str, Any]]:
    """Return the items of `data.clean` with the words of the files that they name in place of these."""
    found: list[str | dict[str, Any]] = []
    for number, item in enumerate(given):
        told = dict(item) if isinstance(item, Mapping) else item
        if isinstance(told, dict):
            option = f"{OPTION}.{number}"
            for name in ("stop_words", "block"):
                inner = told.get(name)
                if name == "block" and isinstance(inner, dict) and isinstance(inner.get("words"), dict):
                    told = {name: {**inner, "words": texts.read_words(inner["words"], f"{option}.{name}.words")}}
                elif name == "stop_words" and isinstance(inner, dict):
                    told = {name: texts.read_words(inner, f"{option}.{name}")}
        found.append(told)
    return found


def _step(item: Any, option: str) -> Step:
    if isinstance(item, str):
        name, told = item, None
    elif isinstance(item, Mapping) and len(item) == 1:
        name, told = next(iter(item.items()))
    else:
        raise UserError(f"{option}: {item!r} is no step; give a name, or one name with its options: {{unicode: NFKC}}.")
    if name not in STEPS:
        raise UserError(
            f"{option}: {name} is no step of cleaning.{did_you_mean(name, STEPS)} Known: {', '.join(STEPS)}."
        )
    return STEPS[name](told, f"{option}.{name}")


def _plain(name: str, edit: Callable[[str], str]) -> Callable[[Any, str], Step]:
    """Return the maker of a step that is told nothing."""

    def make(told: Any, option: str) -> Step:
        if told is not None:
            raise UserError(f"{option} takes no options, and is given {told!r}.")
        return Step(name, edit=edit)

    return make


def _unicode(told: Any, option: str) -> Step:
    return Step("unicode", edit=texts.normalizer(told, option))


def _stop_words(told: Any, option: str) -> Step:
    return Step("stop_words", edit=texts.without_words(told, option), of_labels=True)


def _scrub(told: Any, option: str) -> Step:
    return Step("scrub", edit=private.scrubber(told, option), shows_before=False)


def _presidio(told: Any, option: str) -> Step:
    return Step("presidio", edit=presidio.scrubber(told, option), shows_before=False)


def _length(told: Any, option: str) -> Step:
    return Step("length", keep=filters.of_length(told, option))


def _block(told: Any, option: str) -> Step:
    return Step("block", keep=filters.without(told, option))


def _language(told: Any, option: str) -> Step:
    return Step("language", keep=filters.of_language(told, option))


STEPS: dict[str, Callable[[Any, str], Step]] = {
    "unicode": _unicode,
    "control": _plain("control", texts.without_control),
    "html": _plain("html", texts.without_html),
    "whitespace": _plain("whitespace", texts.single_spaced),
    "scrub": _scrub,
    "presidio": _presidio,
    "stop_words": _stop_words,
    "length": _length,
    "block": _block,
    "language": _language,
}
