"""Adapters: which modules PEFT changes, and which new modules are trained and saved with them."""

from finetune.adapters.attaching import HeadOnly, attach, load_adapter, load_adapters
from finetune.adapters.combining import METHODS, Combination, combine

__all__ = ["METHODS", "Combination", "HeadOnly", "attach", "combine", "load_adapter", "load_adapters"]
