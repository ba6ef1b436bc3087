"""What a generator draws while it learns: pictures from the same noise, made at evaluations and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune import artefact
from finetune.task import Picture

if TYPE_CHECKING:
    from finetune.task import Processor
    from finetune.training.trainer import Trainer


MOST = 20  # pictures a run, evenly over its steps, however often it is evaluated


class Snapshots(TrainerCallback):
    """Writes samples/step-NNNNNN.png in the run, at most 20, on the first process; training goes on as if unseen.

    Args:
        trainer: its `sampled_model()` draws, which for a GAN is the averaged generator.
        processor: of that model, for the task's `sample`.
    """

    def __init__(self, trainer: Trainer, processor: Processor) -> None:
        self.trainer, self.processor = trainer, processor

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._look(args, state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._look(args, state)

    def _look(self, args: TrainingArguments, state: TrainerState) -> None:
        path = Path(str(args.output_dir)) / artefact.SAMPLES / f"step-{state.global_step:06}.png"
        if not state.is_world_process_zero or not state.global_step or _is_shown(path, state):
            return
        model = self.trainer.sampled_model()
        was_training = model.training
        model.eval()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(args.seed)
            picture = self.trainer.task.sample(model, self.processor)
        model.train(was_training)
        if isinstance(picture, Picture):
            path.parent.mkdir(parents=True, exist_ok=True)
            artefact.write_picture(picture, path)


def _is_shown(path: Path, state: TrainerState) -> bool:
    """Say whether there is a picture of this part of the training; the files say it, also to a resumed run."""
    most = max(1, state.max_steps)
    parts = {int(each.stem.removeprefix("step-")) * MOST // most for each in path.parent.glob("step-*.png")}
    return state.global_step * MOST // most in parts
