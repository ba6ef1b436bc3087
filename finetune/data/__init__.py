"""Rows: where they come from, what is checked, and how they are split.

The names below are imported when they are first used: `finetune.data.options` must be light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.data.cache import cached
    from finetune.data.options import DataOptions, Holdout, Source
    from finetune.data.splits import Splits, load_splits, read_rows

__all__ = ["DataOptions", "Holdout", "Source", "Splits", "cached", "load_splits", "read_rows"]

HOMES = {
    "DataOptions": "options",
    "Holdout": "options",
    "Source": "options",
    "Splits": "splits",
    "cached": "cache",
    "load_splits": "splits",
    "read_rows": "splits",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
