"""The table of tasks: the name in a recipe, and where its class stands (imported when it is asked for)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from finetune.errors import UserError, did_you_mean
from finetune.task import Task

if TYPE_CHECKING:
    from finetune.training.trainer import Trainer

TASKS: dict[str, str] = {
    "text-classification": "finetune.tasks.text_classification:TextClassification",
    "token-classification": "finetune.tasks.token_classification:TokenClassification",
    "question-answering": "finetune.tasks.question_answering:QuestionAnswering",
    "causal-lm": "finetune.tasks.causal_lm:CausalLM",
    "chat": "finetune.tasks.chat:Chat",
    "masked-lm": "finetune.tasks.masked_lm:MaskedLM",
    "image-gan": "finetune.tasks.image_gan:ImageGAN",
    "image-vae": "finetune.tasks.image_vae:ImageVAE",
    "image-classification": "finetune.tasks.image_classification:ImageClassification",
    "text-vae": "finetune.tasks.text_vae:TextVAETask",
    "seq2seq": "finetune.tasks.seq2seq:Seq2Seq",
}


def task_class(kind: str) -> type[Task]:
    """Return the class of a task kind; UserError names the nearest known kind."""
    if kind not in TASKS:
        known = ", ".join(TASKS)
        raise UserError(f"task.kind: {kind!r} is not a task; known: {known}.{did_you_mean(kind, TASKS)}")
    module, name = TASKS[kind].split(":")
    return cast("type[Task]", getattr(import_module(module), name))


def trainer_class(task: Task | type[Task]) -> type[Trainer]:
    """Return the class that trains a task."""
    module, name = task.trainer.split(":")
    return cast("type[Trainer]", getattr(import_module(module), name))
