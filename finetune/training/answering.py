"""Every input answered once: in batches of like length, on any number of processes, put back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from finetune.errors import CheckFailed, UserError
from finetune.models.noise import FIXED
from finetune.training import ranks
from finetune.training.batching import drawn
from finetune.training.dealing import NO_ROW, Indexed, batches_by_length

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.training.trainer import Trainer


Ask = Callable[[Any, dict[str, Any]], dict[str, Tensor]]  # from a model and a batch to what is kept of it


def all_answers(trainer: Trainer, inputs: Dataset, loader_options: dict[str, Any], ask: Ask) -> dict[str, np.ndarray]:
    """Return the answers to all inputs, in their order, first dimension len(inputs), on every process.

    Trailing dimensions that differ between batches are padded with 0.

    Args:
        trainer: whose model is asked, in evaluation mode and in the precision of scores.
        inputs: encoded rows.
        loader_options: of torch's DataLoader.
        ask: the task's `answer` or `embed`.

    Raises:
        CheckFailed: an input was answered more or less than once.
        UserError: there is no input.
    """
    if not len(inputs):
        raise UserError("there are no rows to answer.")
    args = trainer.args
    lengths = list(inputs["length"])
    batches = batches_by_length(lengths, args.per_device_eval_batch_size, args.process_index, args.world_size)
    loader = DataLoader(Indexed(inputs), batch_sampler=batches, **loader_options)
    parts: dict[str, list[Tensor]] = {}
    with scoring(trainer) as model:
        for batch in loader:
            trainer.wishes.leave_evaluation(args.device)
            index = batch.pop("index")
            row, _ = batch.pop("row", None), batch.pop("row_id", None)
            if trainer.task.draws:  # what is drawn for a row is the same at every evaluation
                batch |= drawn(args.seed, FIXED, row, progress=1.0)
            answer = ask(model, trainer._prepare_inputs(batch))
            for name, each in {**answer, "index": index}.items():
                parts.setdefault(name, []).append(each.detach().cpu())
    joined = {name: ranks.stacked(_joined(each), args.device, NO_ROW) for name, each in parts.items()}
    index = joined.pop("index")
    real = index != NO_ROW
    order = torch.argsort(index[real])
    if not torch.equal(index[real][order], torch.arange(len(inputs))):
        raise CheckFailed(f"{len(inputs)} inputs got {int(real.sum())} answers: not each exactly one.")
    return {name: _numpy(each[real][order]) for name, each in joined.items()}


@contextmanager
def scoring(trainer: Trainer) -> Iterator[Any]:
    """Give the model in evaluation mode and in the precision of scores, whatever the precision of training.

    accelerate wraps `forward` in autocast for good; the plain one stands beside it.
    """
    model: Any = trainer.answerer
    wrapped, plain = model.__dict__.get("forward"), model.__dict__.get("_original_forward")
    half = trainer.precision == "bfloat16"
    was_training = model.training
    model.eval()
    if plain is not None:
        model.forward = plain
    try:
        with torch.no_grad(), torch.autocast(trainer.args.device.type, torch.bfloat16, enabled=half):
            yield model
    finally:
        if plain is not None:
            model.forward = wrapped
        model.train(was_training)


def _joined(parts: list[Tensor]) -> Tensor:
    """Return the parts as one tensor; trailing dimensions are padded with 0 to the longest."""
    longest = [max(sizes) for sizes in zip(*(each.shape[1:] for each in parts), strict=True)]
    out = parts[0].new_zeros((sum(len(each) for each in parts), *longest))
    start = 0
    for each in parts:
        out[(slice(start, start + len(each)), *(slice(0, size) for size in each.shape[1:]))] = each
        start += len(each)
    return out


def _numpy(values: Tensor) -> np.ndarray:
    array: np.ndarray = (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).numpy()
    return array
