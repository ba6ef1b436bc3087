"""How tags name spans of words: IOB1, IOB2, IOBES, BILOU or IO come in, IOB2 goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from finetune.errors import UserError
from finetune.evaluation.metrics.span_f1 import CLOSES, OPENS, OUTSIDE, spans_of

Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU", "IO", "plain"]
PREFIXED = re.compile(r"[BIESLUM]-(.+)")
ENDINGS = {"E": "IOBES", "S": "IOBES", "M": "IOBES", "L": "BILOU", "U": "BILOU"}


@dataclass
class Seen:
    """What the tags of some rows look like as spans."""

    opened: int = 0  # spans that open with B, S or U
    inside: int = 0  # spans that open with another prefix: right in IOB1
    idle: int = 0  # a B that no span of its kind stands before: wrong in IOB1
    unclosed: int = 0  # in IOBES and BILOU: spans that do not end with E, L, S or U, or S and U that do not stand alone
    endings: str | None = None  # "IOBES" or "BILOU" where such a prefix was met
    first: dict[str, str] = field(default_factory=dict)  # of each count: row id, word and tag

    @property
    def scheme(self) -> Scheme:
        """The scheme that these tags break least."""
        if self.endings is not None:
            return self.endings  # type: ignore[return-value]
        return "IOB1" if self.inside > self.idle or not self.opened else "IOB2"

    def broken(self, scheme: Scheme) -> tuple[int, str]:
        """Return how many spans are not written as a scheme writes them, and where the first stands."""
        names = {
            "IOB1": ("idle",),
            "IOB2": ("inside",),
            "IOBES": ("inside", "unclosed"),
            "BILOU": ("inside", "unclosed"),
        }
        found = [name for name in names.get(scheme, ()) if getattr(self, name)]
        return sum(getattr(self, name) for name in found), self.first[found[0]] if found else ""


def look(rows: Iterable[tuple[str, Sequence[str]]]) -> Seen:
    """Return what (row id, tags) of some rows look like; tags that are neither O nor prefixed are outside."""
    seen = Seen()

    def note(name: str, row_id: str, place: int, tag: str) -> None:
        setattr(seen, name, getattr(seen, name) + 1)
        seen.first.setdefault(name, f'{row_id}, word {place + 1}: "{tag}"')

    for row_id, tags in rows:
        before = None
        for span in spans_of(tags):
            opening, closing = tags[span.start], tags[span.end - 1]
            beside = before is not None and (before.end, before.kind) == (span.start, span.kind)
            if opening[0] not in OPENS:
                note("inside", row_id, span.start, opening)
            else:
                seen.opened += 1
                if opening[0] == "B" and not beside:
                    note("idle", row_id, span.start, opening)
            if closing[0] not in CLOSES or (opening[0] in "SU" and span.end - span.start > 1):
                note("unclosed", row_id, span.end - 1, closing)
            for tag in tags[span.start : span.end]:
                seen.endings = seen.endings or ENDINGS.get(tag[0])
            before = span
    return seen


def names_spans(tags: Iterable[str], scheme: Scheme | None, where: str) -> bool:
    """Say whether tags name spans: all but O have a prefix, or the scheme says so.

    Raises:
        UserError: some have a prefix and others have none.
    """
    if scheme is not None:
        return scheme != "plain"
    known = sorted(set(tags) - {OUTSIDE})
    bare = [tag for tag in known if not PREFIXED.fullmatch(tag)]
    if known and not bare:
        return True
    if len(bare) == len(known) or OUTSIDE not in tags:
        return False
    prefixed = next(tag for tag in known if tag not in bare)
    raise UserError(
        f'{where}: "{bare[0]}" has no prefix (B-, I-, …) and "{prefixed}" has one: no scheme of tags is known that has '
        "both. Mend them, or set task.scheme to plain to learn each as a label of its own."
    )


def iob2(tags: Sequence[str], scheme: Scheme | None) -> list[str]:
    """Return tags that name spans as IOB2 (Ratnaparkhi 1998): B- opens each span, I- goes on, O is outside."""
    made = [OUTSIDE] * len(tags)
    if scheme == "IO":
        tags = [tag if tag == OUTSIDE else f"I-{tag.removeprefix('I-')}" for tag in tags]
    for span in spans_of(tags):
        made[span.start : span.end] = [f"B-{span.kind}"] + [f"I-{span.kind}"] * (span.end - span.start - 1)
    return made


def labels_of(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the labels of a classifier of words: O, and B- and I- of each kind."""
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(set(kinds)) for prefix in "BI"))


def kinds_of(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of spans that labels name, in their order."""
    return tuple(dict.fromkeys(label.partition("-")[2] for label in labels if label != OUTSIDE))
