"""What a model learns from beside its targets: another model's answers."""

from finetune.objectives.distillation import Distillation

__all__ = ["Distillation"]
