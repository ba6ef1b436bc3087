"""Plain values without this machine's paths: of a local path its last name is left."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from finetune.editing.keys import KEY

ABSOLUTE = re.compile(r"(?:file://|~?/|[A-Za-z]:[\\/]|\.\./).+", re.DOTALL)
INSIDE = re.compile(r"(?<![\w.:/])(?:/(?:[\w.+@ -]+/)+|[A-Za-z]:\\(?:[\w.+@ -]+\\)+)(?=[\w.-])")  # up to the last name
SECRET_FORMS = re.compile(KEY.pattern.encode())
TOKENS = ("added_tokens_decoder", "chat_template", "extra_special_tokens", "model_specific_special_tokens")  # are text


def without_paths(value: Any) -> Any:
    """Return a plain value in which every text that is a local path, or names one, keeps the path's last name alone.

    The keys of a mapping are treated alike, and what tokenizers call tokens is left as it is.
    """
    if isinstance(value, dict):
        return {without_paths(name): held if name in TOKENS else without_paths(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(each) for each in value]
    return last_name(value) if isinstance(value, str) else value


def last_name(text: str) -> str:
    """Return the last name of a text that is a path; of a sentence, the sentence with such names in it."""
    if ABSOLUTE.fullmatch(text) and "\n" not in text and not text.startswith("//"):
        pure = PureWindowsPath(text) if re.match(r"[A-Za-z]:", text) else PurePosixPath(text.removeprefix("file://"))
        return pure.name or "folder"
    return INSIDE.sub("", text)


def holds_secret(text: str) -> bool:
    """Say whether a text has what looks like a token or a private key in it."""
    return SECRET_FORMS.search(text.encode(errors="replace")) is not None


def without_secrets(text: str) -> str:
    """Return a text in which whatever looks like a token is hidden."""
    return SECRET_FORMS.sub(b"[a token]", text.encode(errors="replace")).decode(errors="replace")
