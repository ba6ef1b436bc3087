"""`finetune init`: a first recipe for a file, written after a look at it."""

from finetune.drafting.writing import draft, shown

__all__ = ["draft", "shown"]
