"""Text files become lines: compression, byte-order marks, encodings."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from finetune.data.faults import Faults, shown

SAMPLE = 1 << 20  # bytes that are looked at to guess an encoding


def open_bytes(path: str) -> IO[bytes]:
    """Open a file for reading, unpacked where it ends in .gz."""
    return gzip.open(path, "rb") if path.lower().endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


@contextmanager
def open_text(path: str, encoding: str, newline: str, faults: Faults) -> Iterator[Iterator[str]]:
    r"""Give the lines of a file with their ends; undecodable bytes become faults that name the lines.

    Args:
        newline: "" splits at \n, \r\n and \r, as the csv module wants it; "\n" at nothing else.
    """
    with open_bytes(path) as raw:
        text = io.TextIOWrapper(raw, encoding=without_mark(encoding), newline=newline)
        try:
            yield text
        except UnicodeDecodeError:
            name_undecodable(path, encoding, faults)
        except UnicodeError:  # utf-16 without a byte-order mark says so this way
            faults.add(path, 1, f"is not {encoding}: it has no byte-order mark; set data.encoding: utf-16-le")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            faults.add(path, None, f"is not a whole .gz file ({error}); pack it again")


def without_mark(encoding: str) -> str:
    """Return the codec that also swallows UTF-8's byte-order mark."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def name_undecodable(path: str, encoding: str, faults: Faults) -> None:
    """Note each line that `encoding` cannot read, with the bytes and the encoding that would."""
    with open_bytes(path) as raw:
        guess = guess_encoding(raw.read(SAMPLE))
    if guess.startswith("utf-16"):
        faults.add(path, 1, f"is not {encoding} but looks like {guess}; set data.encoding: {guess}")
        return
    with open_bytes(path) as raw:
        for number, line in enumerate(raw, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                near = line[max(0, error.start - 20) : error.start + 20]
                guess = guess if guess != encoding and can_read(near, guess) else "latin-1"
                byte = f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not {encoding}"
                hint = f"near {shown(near.decode(guess, 'replace').strip())} as {guess} reads it"
                faults.add(path, number, f"{byte}; {hint}; set data.encoding: {guess}, or save the file as UTF-8")


def can_read(data: bytes, encoding: str) -> bool:
    """Say whether bytes, but for a character cut at an end, are of an encoding."""
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start > len(data) - 4 or error.end < 4
    return True


def guess_encoding(data: bytes) -> str:
    """Return the likeliest encoding of bytes that are not UTF-8."""
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if data[1::2].count(0) > len(data) / 5 or data[0::2].count(0) > len(data) / 5:
        return "utf-16-le" if data[1::2].count(0) > data[0::2].count(0) else "utf-16-be"
    for encoding, script in (("gb18030", r"[一-鿿]"), ("shift_jis", r"[぀-ヿ一-鿿]")):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if len(re.findall(script, text)) > 0.8 * len(re.findall(r"[^\x00-\x7f、-】！-～]", text)):
            return encoding
    return "cp1252" if can_read(data, "cp1252") else "latin-1"
