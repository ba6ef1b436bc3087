"""A teacher beside the model that is trained: whole on every process, asked without gradients, never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from finetune.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.task import Batch
    from finetune.tasks.teachers import Taught

BRIDGE = "distillation_bridge"  # what leads to the teacher's width hangs on the student by this name, while it trains
STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")  # of outputs; an encoder-decoder has two


class Teacher:
    """What a task's `load_teacher` returned, ready to be asked.

    Args:
        task: whose `distill` says what is learned, and whose `divergence` how far answers lie apart.
        model: is put into evaluation mode, and frozen.
    """

    def __init__(self, task: Taught, model: PreTrainedModel) -> None:
        assert task.distill is not None
        self.task, self.options = task, task.distill
        self.digest = _digest(model)
        self.model: Any = model.requires_grad_(False).eval()

    def join(self, student: Any, device: torch.device, seed: int) -> dict[str, str]:
        """Go to the student's device; hang on it what its hidden states need to be compared where widths differ.

        That is TinyBERT's projection (arXiv:1909.10351, equation 8), one for all layers. It is trained, and put into
        checkpoints, as a part of the student, until `leave` is called.

        Returns:
            What a resumed run must share: a digest of the teacher's weights.

        Raises:
            UserError: the two say tokens of vocabularies of two sizes, or show no hidden states.
        """
        self.model.to(device)
        sizes = [_vocabulary(each) for each in (self.model, student)]
        if None not in sizes and sizes[0] != sizes[1]:
            raise UserError(
                f"task.distill.teacher: {self.options.teacher} knows {sizes[0]} tokens, and the student {sizes[1]}."
            )
        widths = [0, 0]
        if self.options.hidden is not None:
            for each in (student, self.model):
                _check_showing(each)
            widths = [_width(each) for each in (student, self.model)]
        if widths[0] != widths[1]:
            student.add_module(BRIDGE, _Bridge(widths[0], widths[1], seed).to(device))
            self._hook = student.register_forward_hook(_across)
        return {"weights": self.digest}

    def leave(self, student: Any) -> None:
        """Take from the student what `join` hung on it."""
        if hasattr(student, BRIDGE):
            delattr(student, BRIDGE)
            self._hook.remove()

    def lesson(self, batch: Batch) -> Lesson:
        """Return what is learned from a batch, which the teacher has answered."""
        with torch.no_grad(), showing(self.model, self.options.hidden is not None):
            _, outputs = self.task.loss(self.model, batch)
        return Lesson(self.task, outputs)


class Lesson:
    """The loss of a task on a batch, with the teacher's answers beside the targets.

    Args:
        task: whose `distill` says what is learned, and whose `divergence` how far answers lie apart.
        told: the outputs of the teacher.
    """

    def __init__(self, task: Taught, told: Any) -> None:
        assert task.distill is not None
        self.task, self.options, self.told = task, task.distill, told
        self.divergence = task.divergence

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, Any]:
        """Return (loss summed over the batch's targets, the student's outputs), as `Task.loss` does."""
        options = self.options
        with showing(model, options.hidden is not None):
            hard, outputs = self.task.loss(model, batch)
        if options.alpha:
            soft = self.task.divergence(self.told, outputs, batch, options.temperature)
            hard = options.blended(hard, soft)
        if options.hidden is None:
            return hard, outputs
        return hard + options.hidden.weight * self._apart(outputs, batch), outputs

    def _apart(self, outputs: Any, batch: Batch) -> Tensor:
        """Return how far the hidden states of each row lie from the teacher's, times what the row weighs; summed.

        A row weighs what its targets do, so that the sum over the step's weight is a mean, however rows are cut.
        """
        from finetune.objectives.hidden_states import distance

        weights = self.task.row_weights(batch)
        total = weights.new_zeros((), dtype=torch.float32)
        shown = [name for name in STATES if all(getattr(each, name, None) is not None for each in (outputs, self.told))]
        if not shown or getattr(outputs, shown[0])[0].dim() != 3:
            raise UserError(
                "task.distill.hidden: this model shows no hidden states of tokens or patches. Leave it out."
            )
        for name in shown:
            ours = getattr(outputs, f"{name}_across", None) or getattr(outputs, name)
            places = batch["labels"] != -100 if name == STATES[2] else self.task.read_places(batch)
            total = total + (weights * distance(ours, getattr(self.told, name), places)).sum()
        return total


class _Bridge(nn.Module):
    """One linear layer from the student's width to the teacher's, for the states of every layer."""

    def __init__(self, narrow: int, wide: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(wide, narrow, generator=torch.Generator().manual_seed(seed))  # no dropout draws otherwise
        self.weight = nn.Parameter(drawn * narrow**-0.5)

    def forward(self, states: Tensor) -> Tensor:
        """Return states of the teacher's width."""
        return nn.functional.linear(states.to(self.weight.dtype), self.weight)


def _across(student: Any, _given: Any, outputs: Any) -> None:
    """Put hidden states of the teacher's width beside the student's own: in its forward, where processes meet."""
    bridge = getattr(student, BRIDGE, None)
    for name in STATES:
        if bridge is not None and (states := getattr(outputs, name, None)) is not None:
            outputs[f"{name}_across"] = tuple(bridge(each) for each in states)


@contextmanager
def showing(model: Any, hidden: bool) -> Iterator[None]:
    """Within, let a model return its hidden states, if they are wanted; asked for in its call, as PEFT passes it on."""
    from accelerate.utils import extract_model_from_parallel

    if not hidden:
        yield
        return

    def ask(_module: Any, given: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return given, {**named, "output_hidden_states": True}

    handle = extract_model_from_parallel(model).register_forward_pre_hook(ask, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _check_showing(model: Any) -> None:
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    taken = signature(network.forward).parameters
    if "output_hidden_states" not in taken and not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        raise UserError(f"task.distill.hidden: a {model.config.model_type} shows no hidden states. Leave it out.")


def _vocabulary(model: Any) -> int | None:
    """Return how many tokens a model of language can say; None for others."""
    head = model.get_output_embeddings()
    return None if head is None else len(head.weight)


def _width(model: Any) -> int:
    config = model.config.get_text_config()
    width = getattr(config, "hidden_size", None)
    if width is None:
        raise UserError(f"task.distill.hidden: {model.config.model_type} does not say how wide it is. Leave it out.")
    return int(width)


def _digest(model: PreTrainedModel) -> str:
    """Return a digest of every weight, by name: a resumed run must have the same teacher."""
    found = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if isinstance(weight, Tensor):
            found.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            found.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return found.hexdigest()
