"""Foreign folders for tests: models and adapters that are damaged on purpose, and the line that refuses them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModel

from finetune.errors import UserError
from finetune.loading import ModelOptions, load_config, load_pretrained

SECONDS = 2.0  # of the processor: a busy machine changes nothing about what is looked at


def base_of(folder: Path) -> Any:
    return load(folder)[0]


def load(path: Path, auto_class: type = AutoModel, **options: Any) -> Any:
    chosen = ModelOptions(path=str(path), **options)
    return load_pretrained(chosen, auto_class, load_config(chosen))


def edit(file: Path, **changes: Any) -> None:
    held = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**held, **changes}))


def refused(call: Callable[[], Any]) -> str:
    """Return the line that a call is refused with, in time and in one line."""
    started = time.process_time()
    with pytest.raises(UserError) as error:
        call()
    assert time.process_time() - started < SECONDS
    said = str(error.value)
    assert "\n" not in said
    assert len(said) < 900
    return said
