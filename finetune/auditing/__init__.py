"""What a model has kept of its rows: secrets planted in a copy of them, and whether a row can be told to be one."""

from finetune.auditing.audit import audit, shown

__all__ = ["audit", "shown"]
