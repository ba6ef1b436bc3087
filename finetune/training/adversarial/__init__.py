"""Adversarial training: a generator and a discriminator, with the face, files and callbacks of the trainer."""

from finetune.training.adversarial.trainer import AdversarialTrainer

__all__ = ["AdversarialTrainer"]
