"""The stock Trainer with its checkpoint files replaced: what `checkpoints` stages and verifies, and no pickle.

Overridden: train, _init_training_state, _run_epoch, _finalize_training (a resume goes on exactly where it was, and not
past the end); _save_checkpoint, _save, _load_from_checkpoint, _load_best_model, _load_rng_state,
_load_optimizer_and_scheduler, _load_scaler (the files). DeepSpeed and FSDP keep their own format for sharded state,
which holds pickles: it is loaded after the manifest of this run has verified, and never otherwise.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.trainer_callback import ExportableState, TrainerState
from transformers.trainer_utils import SaveStrategy, TrainOutput

from finetune.artefact import CHECKPOINTS
from finetune.errors import FinetuneError, UserError
from finetune.foreign.adapters import bind
from finetune.training import checkpoints, ranks, saved_state, stamps
from finetune.training.options import TrainOptions
from finetune.training.packing import has_state, read_state, write_state
from finetune.training.sharded import in_shards, load_sharded_optimizer, save_sharded

STATE = "trainer_state.json"
FAILURES = (OSError, RuntimeError, ValueError, TypeError, SafetensorError, FinetuneError)


class Checkpointed(transformers.Trainer):
    """Writes, verifies and resumes checkpoints under output_dir/checkpoints.

    `stamp` is what of the recipe a resumed run must not change, as {section: {option: plain value}}.
    """

    stamp: dict[str, Any]
    args: TrainOptions
    model: Any  # PreTrainedModel or PeftModel
    model_wrapped: Any
    optimizer: Any
    lr_scheduler: Any
    changes: Sequence[stamps.Change] = ()  # of the recipe on the way, allowed by name
    _resumed: Path | None = None  # the checkpoint that this training goes on from
    _part: dict[str, Any] | None = None  # this process's part of it, until its epoch goes on

    @property
    def answerer(self) -> Any:
        """The network that is evaluated."""
        return self.model_wrapped if self.is_deepspeed_enabled else self.model

    @property
    def checkpoints(self) -> Path:
        """The folder of this run's checkpoints."""
        return Path(str(self.args.output_dir)) / CHECKPOINTS

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train to the end; with resume_from_checkpoint=True from the newest checkpoint that verifies, if there is one.

        Raises:
            UserError: the checkpoint is another recipe's, or there are checkpoints and neither resuming nor
                `overwrite` was asked for.
            CheckFailed: the loss or the gradient is not a finite number.
            EnvironmentFailed: a checkpoint cannot be written.
        """
        path = self._last_good() if resume_from_checkpoint else None
        if not resume_from_checkpoint and checkpoints.steps(self.checkpoints):
            if not self.args.overwrite:
                raise UserError(f"{self.checkpoints} holds checkpoints: resume, or start anew with train.overwrite.")
            self._together(lambda: shutil.rmtree(self.checkpoints))
        transformers.set_seed(self.args.seed)  # what was drawn since the model was made changes nothing
        self._resumed = path
        self._part = None if path is None else read_state(path, self._part_name)
        return super().train(None if path is None else str(path), *args, **kwargs)

    @property
    def _part_name(self) -> str:
        return f"process-{self.args.process_index}"

    def _last_good(self) -> Path | None:
        found = checkpoints.last_good(self.checkpoints, self._fits) if self.args.process_index == 0 else None
        step = ranks.from_first(-1 if found is None else int(found.name.rpartition("-")[2]), self.args.device)
        if step < 0:
            return None
        path = checkpoints.checkpoint_path(self.checkpoints, step)
        self.changes = stamps.check(path, self.stamp, self.args.allow_change)
        if self.args.should_save:
            print(f"resuming from {path}", flush=True)
            for each in self.changes:
                print("changed at step {step}: {name}: {old} → {new}".format(**each), flush=True)
        return path

    def _fits(self, path: Path) -> None:
        """Raise ValueError when the weights of a checkpoint of this recipe cannot be this model's."""
        if not (self.is_deepspeed_enabled or self.is_fsdp_enabled or stamps.differences(path, self.stamp)):
            self._check_weights(path)

    def _check_weights(self, path: Path) -> None:
        saved_state.read_weights(path, self._network)

    def _together(self, work: Callable[[], Any], everywhere: bool = False) -> None:
        """Do this on process 0, or on all; wait for all; raise on every process what failed on one."""
        failed: BaseException | None = None
        if everywhere or self.args.process_index == 0:
            try:
                work()
            except FAILURES as error:
                failed = error
        ranks.together(failed, self.args.device)

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        for name in ("logging_steps", "eval_steps", "save_steps"):  # shares become steps, as the state has them
            value = getattr(self.args, name)
            if value is not None and 0 < value < 1:
                setattr(self.args, name, math.ceil(max_steps * value))
        reached: tuple[int, int] = super()._init_training_state(max_steps, *args, **kwargs)
        self.state.compute_steps(self.args, max_steps)  # this run's cadence, and not that of the checkpoint
        if self.args.load_best_model_at_end and self.state.best_global_step is not None:
            self._find_best()
        if self._resumed is not None and checkpoints.steps(self.checkpoints)[-1] == self.state.global_step:
            self._rotate()  # a kill may have come between a commit and its rotation
        if self.args.save_strategy != SaveStrategy.NO:
            self._together(lambda: checkpoints.require_room(self.checkpoints, self._bytes_needed(), self._copies()))
        return reached

    def _copies(self) -> int:
        """Return how many checkpoints there will be beside each other, more than there are by now."""
        best = [self.args.eval_steps or 1] if self.args.load_best_model_at_end else []  # each may be one, and is saved
        step = min((self.args.save_steps or 1, *best)) if self.args.save_strategy == SaveStrategy.STEPS else 1
        coming = math.ceil((self.state.max_steps - self.state.global_step) / step)
        return max(1, min(coming, (self.args.save_total_limit or 0) + 1 - len(checkpoints.steps(self.checkpoints))))

    def _find_best(self) -> None:
        path = checkpoints.checkpoint_path(self.checkpoints, self.state.best_global_step or 0)
        problem = ""
        if self.args.process_index == 0:
            try:
                checkpoints.read_manifest(path)
            except (ValueError, OSError) as error:
                problem = str(error)
        if ranks.any_of(bool(problem), self.args.device):
            if self.args.process_index == 0:
                print(f"{path}, the best one so far, is lost ({problem}); the best of what follows is kept", flush=True)
            self.state.best_global_step = self.state.best_metric = self.state.best_model_checkpoint = None
        else:
            self.state.best_model_checkpoint = str(path)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self._part is not None:
            self._go_on()
            if self.control.should_training_stop:
                return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> TrainOutput:
        if self._part is not None:  # no epoch was left
            self._go_on()
        result: TrainOutput = super()._finalize_training(*args, **kwargs)
        return result

    def _go_on(self) -> None:
        """Let the logged means go on as if nothing had happened, and do what was due and cut short at the last step."""
        part, self._part = self._part or {}, None
        self._tr_loss += part["loss"].to(self._tr_loss.device)
        self._total_loss_scalar, self._initial_global_step = part["total_loss"], 0
        self._globalstep_last_logged = part["logged_step"]
        callbacks: Any = self.state.stateful_callbacks
        due = callbacks["TrainerControl"]["args"]
        stopped = due["should_training_stop"] or self.state.global_step >= self.state.max_steps
        self.control.should_training_stop = stopped
        if due["should_evaluate"]:
            self._load_rng_state(str(self._resumed))  # for the checkpoint that may follow
            self.control.should_evaluate, self.control.should_save = True, due["should_save"]
            self.control.should_log = False
            self._maybe_log_save_evaluate(self._tr_loss, None, self.model, None, self.state.epoch or 0, None, 0.0)

    # ---- writing

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.store_flos()
        step = self.state.global_step
        stage = checkpoints.stage_path(self.checkpoints, step)
        facts = {"stamp": self.stamp, "processes": self.args.world_size, "changes": self.changes}
        try:
            self._together(lambda: checkpoints.open_stage(self.checkpoints, step, self._bytes_needed()))
            self._together(lambda: self._write_part(stage), everywhere=True)
            self._together(lambda: checkpoints.commit(self.checkpoints, step, facts))
        except FAILURES:
            if self.args.process_index == 0:
                checkpoints.discard_stage(self.checkpoints, step)
            raise
        best = self.state.best_global_step
        if best is not None and checkpoints.checkpoint_path(self.checkpoints, best).is_dir():
            self.state.best_model_checkpoint = str(checkpoints.checkpoint_path(self.checkpoints, best))
        self._rotate()

    def _rotate(self) -> None:
        most, best, good = self.args.save_total_limit, self.state.best_global_step, self.state.global_step
        self._together(lambda: checkpoints.rotate(self.checkpoints, most, best, good))

    def _bytes_needed(self) -> int:
        return saved_state.size(self._network, self.optimizer, self.args.optim)

    def _write_part(self, stage: Path) -> None:
        with checkpoints.disk(self.checkpoints, self._bytes_needed()):
            write_state(stage, self._part_name, self._own_part())
            if self.is_deepspeed_enabled or self.is_fsdp_enabled:
                save_sharded(self, stage)
            if self.args.process_index == 0:
                self._write_shared(stage)

    def _write_shared(self, stage: Path) -> None:
        if not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            saved_state.save_weights(stage, self._network)
            write_state(stage, "optimizer", self.optimizer.state_dict())
            if self.accelerator.scaler is not None:
                write_state(stage, "scaler", self.accelerator.scaler.state_dict())
        if self._owns_schedule():
            write_state(stage, "schedule", self.lr_scheduler.state_dict())
        self.model.config.save_pretrained(stage)
        called = (*self.callback_handler.callbacks, self.control)
        states: Any = {type(each).__name__: each.state() for each in called if isinstance(each, ExportableState)}
        self.state.stateful_callbacks = states
        kept: TrainerState = dataclasses.replace(self.state, best_model_checkpoint=None)  # found again by its step
        kept.save_to_json(str(stage / STATE))

    def _owns_schedule(self) -> bool:
        return not self.is_deepspeed_enabled or type(self.lr_scheduler).__name__ != "DeepSpeedSchedulerWrapper"

    def _own_part(self) -> dict[str, Any]:
        kept = {"loss": self._tr_loss, "logged_step": self._globalstep_last_logged}
        return {**saved_state.random_state(self.args.device), **kept, "total_loss": self._total_loss_scalar}

    @property
    def _network(self) -> nn.Module:
        network: nn.Module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return network

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        network: Any = self._network
        # PEFT would ask the Hub whether the base's vocabulary has grown; here it never does.
        adapter = {"save_embedding_layers": False} if hasattr(network, "peft_config") else {}
        with checkpoints.disk(folder, self._bytes_needed()):
            main = self.args.should_save
            network.save_pretrained(str(folder), state_dict=state_dict, is_main_process=main, **adapter)
        if self.args.should_save:
            if adapter:
                bind(folder, network.get_base_model())
            # PEFT's card: a blank form that names a path of this machine
            (folder / "README.md").unlink(missing_ok=True)
            checkpoints.honour_umask(folder)

    # ---- reading

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            with in_shards(self):
                super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            saved_state.load_weights(Path(resume_from_checkpoint), self._network)

    def _load_best_model(self) -> None:
        path = Path(str(self.state.best_model_checkpoint))
        self._together(lambda: checkpoints.require(path))
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            with in_shards(self):
                super()._load_best_model()
        else:
            saved_state.load_weights(path, self._network)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            saved_state.restore_random(read_state(Path(checkpoint), self._part_name), self.args.device)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        path = Path(checkpoint)
        with stamps.applied(self.changes, self.optimizer, self.lr_scheduler):
            if self.is_fsdp_enabled:
                load_sharded_optimizer(self, path)
            elif not self.is_deepspeed_enabled:
                self.optimizer.load_state_dict(read_state(path, "optimizer"))
            if self._owns_schedule():
                self.lr_scheduler.load_state_dict(read_state(path, "schedule"))

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and has_state(Path(checkpoint), "scaler"):
            self.accelerator.scaler.load_state_dict(read_state(Path(checkpoint), "scaler"))
