"""A conversation as a model sees it, with what is learned of it marked."""

from __future__ import annotations

import os
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
MARKS = ("⟦", "⟧")
COLOURS = ("\x1b[1;32m", "\x1b[0m")  # bold green, for a terminal
DIM = ("\x1b[2m", "\x1b[0m")


def marked(example: dict[str, Any], processor: PreTrainedTokenizerBase) -> str:
    """Return the text of an input, learned parts in colour on a terminal (unless NO_COLOR is set), else in ⟦ ⟧."""
    terminal = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    ids, labels = list(example["input_ids"]), list(example["labels"])
    # Label t is token t + 1, so the last token of a piece stands among the labels alone.
    tokens = [(ids[0], False)] + [
        (label if label != IGNORED else following, label != IGNORED)
        for label, following in zip(labels, [*ids[1:], None], strict=True)
    ]
    parts = []
    for learned, run in groupby(tokens, key=lambda each: each[1]):
        text = str(processor.decode([one for one, _ in run if one is not None]))
        before, after = (COLOURS if learned else DIM) if terminal else (MARKS if learned else ("", ""))
        parts.append(f"{before}{text}{after}" if text else "")
    return "".join(parts)
