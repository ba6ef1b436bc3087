"""What is told while a model trains, one bar on a terminal and plain lines elsewhere; and how long it trained."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

SECONDS = 5.0  # between two lines of the plain progress
SHOWN = ("accuracy", "mae", "nll", "perplexity")  # scores told during training, where a task has them


class Progress(TrainerCallback):
    """Shows step, loss, tokens/s (or images/s) and time left; the scores whenever the model is evaluated."""

    def __init__(self, unit: str = "tokens", bar: bool | None = None) -> None:
        self.unit = unit
        self.wants_bar = sys.stderr.isatty() if bar is None else bar
        self.bar: Any = None
        self.shown = 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.started, self.first = time.monotonic(), state.global_step
        self.first_tokens = state.num_input_tokens_seen
        if state.is_world_process_zero and self.wants_bar:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        if "loss" in logs:
            self._tell_step(state, logs["loss"])
        elif any(name.startswith("eval_") for name in logs):
            self._write(f"step {state.global_step}/{state.max_steps}  {_scores(logs, args.metric_for_best_model)}")

    def _tell_step(self, state: TrainerState, loss: float) -> None:
        now = time.monotonic()
        seconds = max(now - self.started, 1e-9)
        speed = (state.num_input_tokens_seen - self.first_tokens) / seconds
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4g}, {speed:,.0f} {self.unit}/s")
        elif now - self.shown >= SECONDS or state.global_step >= state.max_steps:
            self.shown = now
            done = state.global_step - self.first
            left = seconds / max(done, 1) * (state.max_steps - state.global_step)
            self._write(
                f"step {state.global_step}/{state.max_steps}  loss {loss:.4g}  {speed:,.0f} {self.unit}/s  "
                f"{_clock(left)} left"
            )

    def _write(self, line: str) -> None:
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the bar; a training that fails calls it too."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class Clock(TrainerCallback, ExportableState):
    """Counts the seconds of training, evaluations and checkpoints among them, and of all of a run; a resume counts on.

    What a stopped run did after its last checkpoint is done again, and counts once.
    """

    def __init__(self) -> None:
        self.begun = time.monotonic()  # when this start of the run began: before the rows were read, where that is told
        self.earlier = 0.0  # seconds of the starts before, up to the checkpoint that this training goes on from
        self.before = 0.0  # those of training among them
        self.started: float | None = None
        self.ended: float | None = None

    @property
    def seconds(self) -> float:
        """Return the seconds of training so far, of all starts."""
        if self.started is None:
            return self.before
        return self.before + (time.monotonic() if self.ended is None else self.ended) - self.started

    @property
    def elapsed(self) -> float:
        """Return the seconds of the whole run so far, of all starts."""
        earlier = max(self.earlier, self.before)  # a checkpoint may be older than `earlier`
        return earlier + time.monotonic() - self.begun

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"args": {}, "attributes": {"before": self.seconds, "earlier": self.elapsed}}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.started = time.monotonic()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.ended = time.monotonic()


def _scores(logs: dict[str, Any], best: str | None) -> str:
    """Return the score that picks the best checkpoint and the few that all ask for; the report has the rest."""
    names = dict.fromkeys([(best or "").removeprefix("eval_"), *SHOWN])
    return "  ".join(f"{name} {logs[f'eval_{name}']:.4g}" for name in names if f"eval_{name}" in logs)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
