"""The trainer: Hugging Face's own loop, with losses as (sum, weight) and every row counted once.

Overridden besides the checkpoint files: get_train_dataloader and get_batch_samples (rows dealt once, row ids kept
aside, weights summed over processes), compute_loss (one division by the step's weight), evaluate (scores from all
answers), _determine_best_metric (ties; the best one is saved), create_optimizer, log.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK

from finetune.errors import UserError
from finetune.training import answering, batching, nonfinite, ranks, regularising
from finetune.training.best import check_best, likelier
from finetune.training.callbacks import Clock, Progress
from finetune.training.dealing import NO_ROW, Dealer, EndlessStream, Indexed
from finetune.training.guarded import Carried, Guarded
from finetune.training.impatience import leave_signals_to_the_parent
from finetune.training.options import TrainOptions
from finetune.training.param_groups import decay_by_layer, give_head_its_own_rate
from finetune.training.sharded import shard_blocks
from finetune.training.snapshots import Snapshots
from finetune.training.stamps import stamped
from finetune.training.world import check_world

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from finetune.task import Task


class Trainer(Guarded):
    """Trains a task's model on its inputs.

    Args:
        task: says what loss, weight, answers and scores are.
        model: with or without an adapter, its new modules made and seeded.
        args: as `options.fitted_to` returns them.
        train_inputs: encoded; a stream needs args.max_steps. None to evaluate alone.
        eval_inputs: encoded; None to train without evaluation.
        processor: of the model, for the task's collator.
        stamp: what of the recipe a resumed run must not change, {section: {option: plain value}}; the train options
            that matter and the number of processes are added here.
        head_parameters: names of the newly initialised parameters, as the model had them before an adapter.
        precision: in which scores are computed.
    """

    loss_is_scaled_for_ga = True
    counts_tokens = True  # of the rows of each step
    train_dataset: Any
    eval_dataset: Any

    def __init__(
        self,
        task: Task,
        model: PreTrainedModel,
        args: TrainOptions,
        train_inputs: Dataset | IterableDataset | None,
        eval_inputs: Dataset | None,
        processor: PreTrainedTokenizerBase,
        stamp: dict[str, Any],
        head_parameters: Sequence[str] = (),
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        check_world(args)
        streams = train_inputs is not None and not hasattr(train_inputs, "num_rows")
        if streams and args.max_steps <= 0:
            raise UserError("train.max_steps is needed with data.streaming: a stream does not say how long it is.")
        self.task, self.precision, self.head_parameters = task, precision, tuple(head_parameters)
        self.stamp = stamped(stamp, args, streams)
        self.teacher = None if train_inputs is None else task.load_teacher(processor)
        if train_inputs is not None:
            regularising.prepare(args, task, model)
        if self.teacher is not None:
            self.stamp["teacher"] = self.teacher.join(model, args.device, args.seed)
        patience = args.early_stopping_patience
        super().__init__(
            model=model,
            args=args,
            data_collator=task.collator(processor),
            train_dataset=train_inputs,
            eval_dataset=eval_inputs,
            callbacks=[] if patience is None else [EarlyStoppingCallback(early_stopping_patience=patience)],
        )
        if train_inputs is not None:  # else nothing is sharded
            shard_blocks(self)
        self.remove_callback(PrinterCallback)
        self.remove_callback(DEFAULT_PROGRESS_CALLBACK)
        self.progress = Progress(task.unit, bar=False if args.disable_tqdm else None)
        self.add_callback(self.progress)
        self.add_callback(Clock())
        if task.unit == "images":
            self.add_callback(Snapshots(self, processor))
        self._dealer: Dealer | None = None
        self._lengths: list[int] | None = None
        self._logged_at = (time.monotonic(), 0)

    @property
    def halved(self) -> bool:
        """Say whether the model answers in half precision whatever is asked for: FSDP casts the shards itself."""
        return bool(self.is_fsdp_enabled and (self.args.bf16 or self.args.fp16))

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, by step: loss, gradient norm, learning rate, tokens/s, scores; finite numbers only."""
        return [dict(each) for each in self.state.log_history]

    def sampled_model(self) -> Any:
        """Return the model that draws what is shown while it trains."""
        return self.accelerator.unwrap_model(self.model)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """See `Guarded.train`."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self.progress.close()
            if self.teacher is not None:
                self.teacher.leave(self._network)

    # ---- rows into batches

    def get_train_dataloader(self) -> DataLoader:
        inputs, args = self.train_dataset, self.args
        options: dict[str, Any] = self._loader_options()
        if not hasattr(inputs, "num_rows"):
            stream = EndlessStream(inputs, args.process_index, args.world_size)
            return DataLoader(stream, batch_size=args.per_device_train_batch_size, **options)
        self._lengths = list(inputs["length"]) if "length" in inputs.column_names else None
        self._dealer = Dealer(
            rows=len(inputs),
            batch=args.per_device_train_batch_size,
            seed=args.seed if args.data_seed is None else args.data_seed,
            strategy=args.train_sampling_strategy,
            lengths=self._lengths,
            group=args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
            process=args.process_index,
            processes=args.world_size,
            drop_last=args.dataloader_drop_last,
        )
        if not len(self._dealer):
            raise UserError(f"train: {len(inputs)} rows do not make one batch; turn dataloader_drop_last off.")
        return DataLoader(Indexed(inputs), batch_sampler=self._dealer, **options)

    def _loader_options(self) -> dict[str, Any]:
        args = self.args
        return {
            "collate_fn": self.data_collator,
            "num_workers": args.dataloader_num_workers,
            "pin_memory": args.dataloader_pin_memory and args.device.type == "cuda",
            "persistent_workers": args.dataloader_persistent_workers,
            "prefetch_factor": args.dataloader_prefetch_factor,
            "multiprocessing_context": args.dataloader_multiprocessing_context,
            "in_order": args.dataloader_in_order,
            "worker_init_fn": leave_signals_to_the_parent,
            # Its own generator: that batches are read must not change what dropout draws.
            "generator": torch.Generator().manual_seed(args.seed),
        }

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        reached = super()._init_training_state(*args, **kwargs)
        self._logged_at = (time.monotonic(), self.state.num_input_tokens_seen)  # speeds are of what follows
        return reached

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self._dealer is not None:
            self._dealer.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        """Return the micro-batches of one step, and the weight of the step over all processes."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        self._carried, self._losses, weight, tokens = [], [], 0.0, 0
        self._loss_before = self._tr_loss.clone()
        for batch in batches:
            index, row_ids, row = batch.pop("index", None), batch.pop("row_id", []), batch.pop("row", None)
            if self.task.draws:
                step, most = self.state.global_step, self.state.max_steps
                batch |= batching.drawn(self.args.seed, step, row, progress=step / most)
            stand_in = index is not None and bool((index == NO_ROW).all())
            self._carried.append(Carried(list(row_ids), stand_in))
            if not stand_in:
                weight += float(self.task.weight(batch))
                tokens += batching.count_tokens(batch, self._lengths, index)
        own = [weight, tokens, len(batches), *self.wishes.own()]
        total = ranks.summed(torch.tensor(own, dtype=torch.float64), device).tolist()
        self.wishes.agree(total[3:])
        if total[2] != num_batches * self.args.world_size:
            raise UserError(f"data.train: the stream ended without a row on one of {self.args.world_size} processes.")
        if not total[0] > 0:
            rows = [each.row_ids for each in self._carried if not each.stand_in]
            nonfinite.report(self.args, self.state.global_step + 1, "there is no target to learn from", rows)
        self.state.num_input_tokens_seen += int(total[1])
        return batches, total[0]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return this micro-batch's share of the step's loss: its sum over the weight of the whole step.

        Times the number of processes, because gradients (and logged losses) are averaged over them afterwards.
        """
        learned = self.task if self.teacher is None else self.teacher.lesson(inputs)
        total, outputs = regularising.loss(self.args, learned, model, inputs)
        weight = float(self.task.weight(inputs)) if num_items_in_batch is None else num_items_in_batch
        loss = total * (self.args.world_size / weight)
        place = len(self._losses)
        if place < len(self._carried) and self._carried[place].stand_in:
            loss = loss * 0.0
        self._losses.append(loss.detach())
        if self.is_deepspeed_enabled:
            self._stop_unless_finite(None)  # it steps inside backward
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the optimizer; blocks of layers, and the newly initialised modules, at rates of their own if asked."""
        made = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        network = self.model if model is None else model
        if made and self.args.layer_decay is not None:
            decay_by_layer(optimizer, network, self.args.layer_decay)
        if made and self.args.head_learning_rate is not None:
            give_head_its_own_rate(optimizer, network, self.head_parameters, self.args.head_learning_rate)
        return optimizer

    # ---- scores

    def answers(self, inputs: Dataset, ask: answering.Ask | None = None) -> dict[str, np.ndarray]:
        """Return what the model answers (or `ask`) to every input, once and in order, on any number of processes.

        Raises:
            CheckFailed: an input was answered more or less than once.
        """
        return answering.all_answers(self, inputs, self._loader_options(), ask or self.task.answer)

    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Return {PREFIX_score: value} of the task's scores on all inputs together, and log them."""
        inputs = self.eval_dataset if eval_dataset is None else eval_dataset
        started = time.monotonic()
        scores = self.task.score(self.answers(inputs), inputs, resamples=0)
        metrics = {f"{metric_key_prefix}_{name}": float(score.value) for name, score in scores.items()}
        best = self.args.metric_for_best_model
        if metric_key_prefix == "eval" and best is not None:
            check_best(f"eval_{best.removeprefix('eval_')}", metrics, self.state.global_step)
        seconds = time.monotonic() - started
        metrics[f"{metric_key_prefix}_runtime"] = seconds
        metrics[f"{metric_key_prefix}_rows_per_second"] = len(inputs) / seconds
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        better = bool(super()._determine_best_metric(metrics=metrics, trial=trial))
        if tied := not better and likelier(metrics, self.state, self.args):
            self.state.best_global_step = self.state.global_step
        if (better or tied) and self.args.load_best_model_at_end:
            self.control.should_save = True  # it is to be loaded, so it is there, whatever the cadence of saves
        return better or tied

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log finite numbers; the speed in tokens beside the loss."""
        if "train_runtime" in logs:  # rows and steps a second would count those of before a resume
            logs = {name: logs[name] for name in ("train_runtime", "train_loss")}
            logs["train_loss"] *= self.state.global_step / max(self.state.global_step - self.skipped.count, 1)
        (then, before), now, seen = self._logged_at, time.monotonic(), self.state.num_input_tokens_seen
        if "loss" in logs and self.counts_tokens:
            logs["tokens_per_second"] = max(seen - before, 0) / max(now - then, 1e-9)
            self._logged_at = now, seen
        logs |= {"tokens": seen} if self.counts_tokens else {}
        logs |= {"skipped_steps": self.skipped.count} if self.skipped.count else {}
        super().log({name: value for name, value in logs.items() if math.isfinite(value)}, start_time)
