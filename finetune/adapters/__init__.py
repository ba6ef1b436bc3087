"""Adapters: which modules PEFT changes, and which new modules are trained and saved with them."""

from finetune.adapters.attaching import HeadOnly, attach, load_adapter

__all__ = ["HeadOnly", "attach", "load_adapter"]
