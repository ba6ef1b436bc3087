"""Fine-tune BERT- and GPT-2-style models on your own data, and know how good the result really is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.difference import diff
    from finetune.exporting import export
    from finetune.merging import merge
    from finetune.recipe import Recipe
    from finetune.reuse import evaluate, predict, sample
    from finetune.run import train
    from finetune.task import Task

__all__ = ["Recipe", "Task", "diff", "evaluate", "export", "merge", "predict", "sample", "train"]

EXPORTS = {  # imported when they are asked for: torch takes seconds
    "Recipe": "finetune.recipe",
    "Task": "finetune.task",
    "diff": "finetune.difference",
    "evaluate": "finetune.reuse",
    "export": "finetune.exporting",
    "merge": "finetune.merging",
    "predict": "finetune.reuse",
    "sample": "finetune.reuse",
    "train": "finetune.run",
}


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    return getattr(import_module(EXPORTS[name]), name)
