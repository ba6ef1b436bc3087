"""Encoded inputs are kept for the next run, and taken again only when everything that made them is the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from finetune.task import Encoded

RECORD = "cached.json"


def cached(build: Callable[[], Encoded], key: dict[str, Any], cache_dir: Path | None) -> Encoded:
    """Return what `build` gives, from `cache_dir` when an entry with the same key is there and whole.

    An entry is a folder named by the key's sha256: the data set as `save_to_disk` writes it, and a JSON record with the
    key, the facts and the size of each file. It is written aside and renamed: a half-written one is never found.
    """
    if cache_dir is None:
        return build()
    text = json.dumps(key, sort_keys=True, ensure_ascii=False, default=str)
    entry = cache_dir / hashlib.sha256(text.encode()).hexdigest()
    found = read_entry(entry, text)
    if found is not None:
        return found
    encoded = build()
    write_entry(entry, text, encoded)
    return read_entry(entry, text) or encoded


def read_entry(entry: Path, key: str) -> Encoded | None:
    """Return an entry of the cache, or None when it is missing, damaged or of another key."""
    try:
        record = json.loads((entry / RECORD).read_text(encoding="utf-8"))
        sizes = {name: (entry / name).stat().st_size for name in record["sizes"]}
        if record["key"] != key or sizes != record["sizes"]:
            return None
        inputs = datasets.load_from_disk(str(entry / "inputs"))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid):
        return None  # the caller builds it again and replaces it
    return Encoded(inputs, record["facts"])


def write_entry(entry: Path, key: str, encoded: Encoded) -> None:
    """Write an entry beside its place and move it there; another process may have been quicker."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".stage-", dir=entry.parent))
    try:
        encoded.inputs.save_to_disk(str(stage / "inputs"))
        files = [path for path in stage.rglob("*") if path.is_file()]
        sizes = {path.relative_to(stage).as_posix(): path.stat().st_size for path in files}
        record = {"key": key, "facts": encoded.facts, "sizes": sizes}
        (stage / RECORD).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
        stage.chmod(0o777 & ~current_umask())  # mkdtemp gives 0700 whatever the umask
        if entry.exists() and read_entry(entry, key) is None:
            shutil.rmtree(entry)
        if not entry.exists():
            os.replace(stage, entry)
    except OSError:
        if not entry.exists():  # not a race that was lost
            raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def current_umask() -> int:
    """Return the process's umask."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
