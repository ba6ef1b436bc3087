"""`finetune sweep`: many runs of one recipe with other options, and the best of them held to the test rows once."""

from finetune.sweeping.study import shown, sweep

__all__ = ["shown", "sweep"]
