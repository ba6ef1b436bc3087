"""The last look before anything leaves: does a file hold a token, or where on this machine it was made?"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import UserError
from finetune.publishing.files import Upload
from finetune.publishing.scrubbing import SECRET_FORMS, SHORTEST

SECRET_NAME = re.compile(r"(?i)token|secret|passw|credential|(?:^|_)key(?:$|_)|apikey")
EVERYDAY = {"admin", "debian", "docker", "localhost", "nobody", "root", "runner", "ubuntu", "user", "build", "jenkins"}
BLOCK = 1 << 24  # bytes read at a time


@dataclass(frozen=True)
class Needle:
    """What must not be found."""

    what: str  # in words, without the secret itself
    text: bytes
    in_words_only: bool = False  # as a word of a text that was written for people, for it may stand in a vocabulary


def needles(folders: Iterable[str], repository: str) -> list[Needle]:
    """Return what is private here: tokens, paths of this machine, the names of user and machine.

    Args:
        folders: absolute paths besides the home folder: of the run, of the base, of the data.
        repository: where it goes; names that are public in it anyhow are none.
    """
    from huggingface_hub import get_token

    found = [
        Needle(f"the value of the environment variable {name}", value.encode())
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SHORTEST and not Path(value).exists()
    ]
    if token := get_token():
        found.append(Needle("the Hub token", token.encode()))
    home = str(Path.home())
    places = {home, os.path.realpath(home), *(os.path.abspath(each) for each in folders)}
    for place in sorted(places - {"/"}):
        found.append(Needle("a path of this machine", f"{place}/".encode()))
    names = {"the name of this machine": socket.gethostname(), "the name of the user": _user()}
    public = set(re.split(r"[/_.-]", repository.lower()))
    for what, name in names.items():
        if len(name) > 3 and name.lower() not in EVERYDAY | public:
            found.append(Needle(what, name.encode(), in_words_only=True))
    return found


def refuse_leaks(uploads: Iterable[Upload], private: list[Needle]) -> None:
    """Raise UserError when a file holds something private; the line names the file and what it is, never the secret."""
    for upload in uploads:
        for what in sorted(set(leaks_of(upload, private))):
            raise UserError(
                f"publish: {upload.path} holds {what}; nothing was uploaded. Remove it from what the run was made of "
                "(base, tokenizer, recipe, texts for the card) and train or publish again."
            )


def leaks_of(upload: Upload, private: list[Needle]) -> Iterator[str]:
    """Yield what of `private`, or what looks like a token of some service, stands in the bytes of a file."""
    tail = max((len(each.text) for each in private), default=0) + 200
    last = b""
    for block in upload.blocks(BLOCK):
        held = last + block
        for each in private:
            if each.in_words_only:
                if upload.written_here and re.search(rb"(?<!\w)" + re.escape(each.text) + rb"(?!\w)", held):
                    yield each.what
            elif each.text in held:
                yield each.what
        if SECRET_FORMS.search(held):
            yield "what looks like a token or a key"
        last = held[-tail:]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return ""
