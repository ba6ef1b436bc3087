"""Stopping at a step that all processes agree on, with a checkpoint of it: by a signal to any of them, or the clock.

Overridden: train (listens to signals), _maybe_log_save_evaluate (where a step or an epoch ends), _save_checkpoint (what
is due at the end of an epoch comes before the checkpoint of its last step), _load_callback_state (keeps when this start
began).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn
from transformers.trainer_utils import TrainOutput

from finetune.errors import DISCARDED, Stopped
from finetune.training import checkpoints, ranks
from finetune.training.callbacks import Clock
from finetune.training.checkpointed import Checkpointed
from finetune.training.impatience import impatient

SAVE_NOW = "checkpoint-now"  # a file of this name in the run's folder asks for a checkpoint
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Cut(Exception):
    """An evaluation was left, on every process, because the training is to stop."""


class Wishes:
    """What was asked of a training that is under way, and what its processes have agreed on.

    Args:
        folder: of the run.
        hours: after which the training stops, counted from the start of the process.
    """

    def __init__(self, folder: Path, hours: float | None) -> None:
        self.file, self.hours = folder / SAVE_NOW, hours
        self.signal: int | None = None
        self.stop = self.save = self.listening = False

    @property
    def cause(self) -> str:
        """What asked this process to stop; "" when nothing did."""
        if self.signal is not None:
            return signal.Signals(self.signal).name
        over = self.hours is not None and time.time() - _started() > self.hours * 3600
        return f"train.max_hours {self.hours}" if over else ""

    def own(self) -> list[float]:
        """Return what is asked of this process, [stop, save], for the sum over all of them."""
        return [float(bool(self.cause)), float(ranks.rank() == 0 and self.file.exists())]

    def agree(self, total: Sequence[float]) -> None:
        """Take over the sum of what every process returned from `own`: each of them holds the same afterwards."""
        self.stop, self.save = total[0] > 0, total[1] > 0

    def leave_evaluation(self, device: Any) -> None:
        """Raise Cut, on every process, when any of them was asked to stop; between two batches of an evaluation."""
        if self.listening and ranks.any_of(bool(self.cause), device):
            self.stop = True
            raise Cut

    def done(self) -> None:
        """Forget the file that asked for a checkpoint."""
        self.save = False
        if ranks.rank() == 0:
            self.file.unlink(missing_ok=True)

    @contextmanager
    def heard(self, going_on: Callable[[], str], discarded: Path | None) -> Iterator[None]:
        """Note signals instead of ending by them, but for a second one; leave them as they are in a thread of its own.

        Args:
            going_on, discarded: as of `impatient`.
        """
        self.stop, self.save, self.signal, self.listening = False, False, None, True
        before = {}
        if threading.current_thread() is threading.main_thread():
            known = {name: signal.getsignal(name) for name in SIGNALS}
            before = {name: each for name, each in known.items() if each != signal.SIG_IGN}
        owner = os.getpid()

        def note(number: int, frame: FrameType | None) -> None:
            if os.getpid() == owner:
                self.signal = self.signal or number
            elif number == signal.SIGTERM:  # a worker that reads data; Ctrl-C reaches it too, and is its parent's
                os._exit(128 + number)

        for name in before:
            signal.signal(name, note)
        try:
            with impatient(before, going_on, discarded) if before else nullcontext():
                yield
        finally:
            self.listening = False
            for name, each in before.items():  # a command's own handler would break into what ends it now
                plain = each in (signal.SIG_DFL, signal.default_int_handler)
                signal.signal(name, each if plain or not self.stop else signal.SIG_IGN)


class Stoppable(Checkpointed):
    """Stops and saves at the ends of steps. What is due there and was cut short is made up for by the resumed run."""

    discarded: Path | None = None  # a folder around this training that its caller keeps only when it is done
    _ended = -1  # the step whose end was dealt with last
    _at_step = False  # that the end of a step is dealt with, and not that of an epoch
    _held = False  # that a checkpoint is due at the end of the epoch
    _saved = -1  # the step of the last checkpoint

    @property
    def wishes(self) -> Wishes:
        """What was asked of this training."""
        if "_wishes" not in self.__dict__:
            self._wishes = Wishes(Path(str(self.args.output_dir)), self.args.max_hours)
        return self._wishes

    @property
    def clock(self) -> Clock:
        """The clock of this training; a resume puts another in the place of the first."""
        return next(each for each in self.callback_handler.callbacks if isinstance(each, Clock))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """See `Checkpointed.train`.

        Raises:
            Stopped: a signal or `max_hours` asked for it; there is a checkpoint of the last step, if it is kept.

        A second signal ends the process, with the same code and without a checkpoint.
        """
        self._ended = self._saved = -1
        with self.wishes.heard(self._going_on, self.discarded):
            result = super().train(resume_from_checkpoint, *args, **kwargs)
        late = [each for each in ranks.all_said(self.wishes.signal, self.args.device) if each is not None]
        if late:  # no step was left that could have ended by it: it is for whoever listened before, on every process
            signal.raise_signal(late[0])
        self.wishes.done()
        return result

    def let_go(self) -> None:
        """Free what only training needed, optimiser and gradients: a second copy of the model is about to be loaded.

        DeepSpeed's engine is left alone: what it holds is freed by all processes together.
        """
        if self.is_deepspeed_enabled:
            return
        self.optimizer = self.lr_scheduler = None
        self.callback_handler.optimizer = self.callback_handler.lr_scheduler = None
        self.model_wrapped = self.model  # without the buckets that gradients were averaged in
        self.model.zero_grad(set_to_none=True)
        self.accelerator.free_memory()

    def _load_callback_state(self) -> None:
        begun = self.clock.begun
        super()._load_callback_state()
        self.clock.begun = begun

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self._at_step, self._ended = self._ended != self.state.global_step, self.state.global_step
        if self._held:
            self.control.should_save, self._held = True, False
        if self.wishes.stop:
            due = self.control.should_evaluate, self.control.should_save
            self.control.should_evaluate = self.control.should_save = False
            super()._maybe_log_save_evaluate(*args, **kwargs)
            self.control.should_evaluate, self.control.should_save = due
        else:
            self._end_step(*args, **kwargs)
        if self.wishes.stop and not self._epoch_ends_next():
            self._stop()

    def _go_on(self) -> None:
        self._ended = self.state.global_step  # its epoch's end does not come after it again
        super()._go_on()

    def _end_step(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except Cut:
            return  # the control still says what is due
        if self.wishes.save and self._saved != self.state.global_step:
            self._save_checkpoint(self.model, None)
        over = self.control.should_training_stop or self._saved == self.state.global_step
        if over or ranks.world() == 1:  # asked meanwhile: another step is not waited for, where it costs little to ask
            self.wishes.stop = ranks.any_of(bool(self.wishes.cause), self.args.device)

    def _epoch_ends_next(self) -> bool:
        """Say whether the end of the epoch is dealt with before anything else is learned."""
        over = self.control.should_training_stop or self.control.should_epoch_stop
        return self._at_step and (over or float(self.state.epoch or 0).is_integer())

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self._epoch_ends_next():  # resumed from here, a run would not meet the end of this epoch any more
            self._held = True
            return
        super()._save_checkpoint(model, trial)
        self._saved = self.state.global_step
        if self.wishes.save:
            self.wishes.done()

    def _stop(self) -> None:
        step = self.state.global_step
        causes = [each for each in ranks.all_said(self.wishes.cause, self.args.device) if each]
        if self.discarded is not None:
            raise Stopped(f"stopped by {causes[0]} after step {step} of {self.state.max_steps}: {self._going_on()}")
        if self._saved != step or self.control.should_evaluate:
            self._save_checkpoint(self.model, None)
        path = checkpoints.checkpoint_path(self.checkpoints, step)
        raise Stopped(
            f"stopped by {causes[0]} after step {step} of {self.state.max_steps}: {path} holds it, and {self._again} "
            "goes on from there."
        )

    @property
    def _again(self) -> str:
        return "the same command without --overwrite (train.overwrite)" if self.args.overwrite else "the same command"

    def _going_on(self) -> str:
        if self.discarded is not None:
            return DISCARDED
        known = checkpoints.steps(self.checkpoints)
        if not known:
            return "there is no checkpoint yet, and the same command begins anew."
        return f"{self._again} goes on from {checkpoints.checkpoint_path(self.checkpoints, known[-1])}."


def _started() -> float:
    """Return when this process started, in seconds since the epoch."""
    import psutil  # type: ignore[import-untyped]

    return float(psutil.Process().create_time())
