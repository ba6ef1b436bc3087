"""Plain values without this machine's paths: of a local path its last name is left."""

from __future__ import annotations

import re
import sys
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from finetune.editing.keys import KEY

ABSOLUTE = re.compile(r"(?:file://|~?/|[A-Za-z]:[\\/]|\.\./).+", re.DOTALL)
INSIDE = re.compile(r"(?<![\w.:/])(?:/(?:[\w.+@ -]+/)+|[A-Za-z]:\\(?:[\w.+@ -]+\\)+)(?=[\w.-])")  # up to the last name
SECRET_FORMS = re.compile(KEY.pattern.encode())
SHORTEST = 8  # letters of what is taken for a secret by its value
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
    """Return a text in which whatever looks like a token is hidden, and the Hub's token in use, whatever its form."""
    hidden = SECRET_FORMS.sub(b"[a token]", text.encode(errors="replace")).decode(errors="replace")
    token = _in_use()
    return hidden.replace(token, "[a token]") if len(token) >= SHORTEST else hidden


def in_short(said: object, most: int) -> str:
    """Return what somebody else said as one line of at most so many characters; cut first, a token would not be known.

    Its last character is "…" where something was cut.
    """
    words = without_secrets(" ".join(str(said).split()))
    return words if len(words) <= most else words[: most - 1] + "…"


def _in_use() -> str:
    hub = sys.modules.get("huggingface_hub")
    if hub is None:  # then nobody was told it who could repeat it
        return ""
    try:
        return hub.get_token() or ""
    except OSError:  # a file that may not be read: no token of it is in use
        return ""
