"""What is done to texts before anything is made of them: cleaning, scrubbing, filters, in the recipe's order."""

from finetune.editing.steps import Step, plan, with_words

__all__ = ["Step", "plan", "with_words"]
