"""The trainer of two players: the loop, the files and the callbacks of `training.trainer`, one update at a time.

An update is what `training_step` does: the discriminator's steps (as many as the task says, each with its own
optimiser, clipping and check) and the generator's gradients, which the loop then clips, checks and applies. So
`max_steps`, schedules, logs and checkpoints count updates of the generator. Both networks are prepared by one
accelerator, generator first, and each is called through its own wrapper where it learns.

Overridden besides: get_train_dataloader and get_batch_samples (all rows of an update), create_optimizer and
create_scheduler (one of each a player), the checkpoint files, what answers (the averaged generator), log.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from finetune.models.gan import attach
from finetune.training import batching, ranks, stamps
from finetune.training.adversarial import saved, still
from finetune.training.adversarial.ema import Average
from finetune.training.adversarial.refusals import refuse
from finetune.training.adversarial.tally import Tally
from finetune.training.adversarial.updates import Group, Microbatches, Updates, grouped
from finetune.training.dealing import NO_ROW
from finetune.training.guarded import Carried
from finetune.training.options import TrainOptions, resume_stamp
from finetune.training.trainer import Trainer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from finetune.task import Processor


class AdversarialTrainer(Trainer):
    """Trains a generator against a discriminator. Arguments as of `Trainer`; `model` is the generator.

    Of the task it asks other things than `Trainer`: `adversary(model)`, the discriminator; `discriminator_loss(
    discriminator, generator, batch)`, a Judged; `generator_loss(generator, discriminator, batch)`, a sum over rows;
    `betas`, `critic_steps`, `ema_decay`, `discriminator_learning_rate` and `tallied`. The task's `answer` and `examine`
    find the discriminator as `model.adversary`.
    """

    task: Any

    def __init__(
        self,
        task: Any,
        model: PreTrainedModel,
        args: TrainOptions,
        train_inputs: Dataset | None,
        eval_inputs: Dataset | None,
        processor: Processor,
        stamp: dict[str, Any],
        **more: Any,
    ) -> None:
        if train_inputs is not None:
            refuse(args, model, train_inputs)
        super().__init__(task, model, fitted(args, task.betas), train_inputs, eval_inputs, processor, stamp, **more)
        self.stamp |= {"train": resume_stamp(args)}
        self.accumulation = args.gradient_accumulation_steps
        self.discriminator = task.adversary(model).to(args.device)
        self.judge: Any = self.discriminator  # with what is wrapped around it for training
        self.d_optimizer: Any = None
        self.d_scheduler: Any = None
        self.d_rate = 0.0  # of the last step
        self._judged, self._share = 0, 1.0  # of this update: the discriminator's steps so far, this process's rows
        self.average = Average(model, task.ema_decay) if task.ema_decay else None
        self.raw: dict[str, Tensor] | None = None  # the trained weights, once the average has taken their place
        for generator in (model, self.answerer):
            attach(generator, self.discriminator)
        self.tally = Tally(args.device)
        self.add_callback(AfterStep(self))

    @property
    def answerer(self) -> Any:
        """The generator that is judged: the averaged one."""
        return self.model if self.average is None else self.average.network

    def sampled_model(self) -> Any:
        """Return the averaged generator, also on the way."""
        return super().sampled_model() if self.average is None else self.average.network

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """See `Checkpointed.train`; `model` has the averaged weights afterwards, and `raw` the trained ones."""
        result = super().train(*args, **kwargs)
        if self.average is not None:
            self.raw = {name: each.detach().clone() for name, each in self.model.state_dict().items()}
            self.model.load_state_dict(self.average.network.state_dict())
        return result

    # ---- rows into updates

    def get_train_dataloader(self) -> DataLoader:
        rows = super().get_train_dataloader().dataset
        assert self._dealer is not None
        updates = Updates(self._dealer, self.accumulation * self.task.critic_steps)
        options = {**self._loader_options(), "collate_fn": list}
        return DataLoader(Microbatches(rows, self.data_collator), batch_sampler=updates, **options)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return [the groups of one update], each with its weight over all processes, and the last one's weight."""
        batches, weights, carried = next(epoch_iterator), [], []
        for batch in batches:
            index, row_ids, row = batch.pop("index"), batch.pop("row_id"), batch.pop("row")
            progress = self.state.global_step / self.state.max_steps
            batch |= batching.drawn(self.args.seed, self.state.global_step, row, progress)
            stand_in = bool((index == NO_ROW).all())
            carried.append(Carried(list(row_ids), stand_in))
            weights.append(0.0 if stand_in else float(self.task.weight(batch)))
        groups = grouped([self._prepare_inputs(batch) for batch in batches], carried, weights, self.accumulation)
        own = torch.tensor([*(each.weight for each in groups), *self.wishes.own()], dtype=torch.float64)
        totals = ranks.summed(own, device).tolist()
        self._share = sum(weights) / max(sum(totals[:-2]), 1)
        self.wishes.agree(totals[-2:])
        for group, total in zip(groups, totals[:-2], strict=True):
            group.weight = total
            self.state.num_input_tokens_seen += int(total)
        return [groups], groups[-1].weight

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: two networks and penalties are not counted."""
        return 0

    # ---- steps

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Take the discriminator's steps of one update, and leave the generator's gradients; return its loss."""
        model.train()
        for self._judged, group in enumerate(inputs):
            self._step_discriminator(group)
        self._judged = len(inputs)
        with still.frozen(self.discriminator):
            return self._each(
                inputs[-1], model, lambda batch: self.task.generator_loss(model, self.discriminator, batch)
            )

    def _step_discriminator(self, group: Group) -> None:
        self.discriminator.refine()

        def loss(batch: dict[str, Any]) -> Tensor:
            judged = self.task.discriminator_loss(self.judge, self.model, batch)
            self.tally.add(judged, self._carried[len(self._losses)].stand_in, len(batch["keys"]))
            return judged.loss

        self._each(group, self.judge, loss)
        most = self.args.max_grad_norm or float("inf")
        self._stop_unless_finite(self.accelerator.clip_grad_norm_(self.judge.parameters(), most))
        self.d_optimizer.step()
        self.d_optimizer.zero_grad()

    def _each(self, group: Group, network: nn.Module, loss: Any) -> Tensor:
        """Add the gradients of every micro-batch of a group to `network`; return this process's share of the loss."""
        self._carried, self._losses = group.carried, []
        scale = self.args.world_size / max(group.weight, 1)
        for place, batch in enumerate(group.batches):
            last, stand_in = place == len(group.batches) - 1, group.carried[place].stand_in
            with contextlib.nullcontext() if last else self.accelerator.no_sync(network):
                with self.accelerator.autocast(), still.unmoved(self.model, stand_in):
                    share = loss(batch) * (0.0 if stand_in else scale)
                self.accelerator.backward(share)
            self._losses.append(share.detach())
        return torch.stack(self._losses).sum()

    @property
    def left(self) -> str:
        """See `Guarded.left`; what the discriminator has learned in this update cannot be taken back."""
        return f"the step was broken off after {self._judged} of the discriminator's" if self._judged else super().left

    def after_step(self) -> None:
        """Follow the generator's step, of this number from 0: schedule, buffers, average."""
        self.d_rate = float(self.d_scheduler.get_last_lr()[0])
        self.d_scheduler.step()
        still.agree(self.model, self._share, self.args.device)
        if self.average is not None:
            self.average.update(self.model, self.state.global_step)

    # ---- optimisers and schedules, one of each a player

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the generator's; the discriminator's, at its own rate, is made beside it."""
        generators = super().create_optimizer(model)
        if self.d_optimizer is None:
            self.optimizer = None
            self.d_optimizer = transformers.Trainer.create_optimizer(self, self.discriminator)
            self.optimizer = generators
            rate = self.task.discriminator_learning_rate
            for group in self.d_optimizer.param_groups:
                group["lr"] = self.args.learning_rate if rate is None else rate
        return generators

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the generator's; prepare the discriminator, now that the generator is."""
        made = super().create_scheduler(num_training_steps, optimizer)
        if self.d_scheduler is None:
            self.judge, self.d_optimizer = self.accelerator.prepare(self.discriminator, self.d_optimizer)
            # Its penalties need it without the autocast that accelerate wraps around `forward`.
            self.accelerator.unwrap_model(self.judge, keep_fp32_wrapper=False)
            self.d_scheduler = transformers.get_scheduler(
                self.args.lr_scheduler_type,
                optimizer=self.d_optimizer,
                num_warmup_steps=self.args.get_warmup_steps(num_training_steps),
                num_training_steps=num_training_steps,
                scheduler_specific_kwargs=self.args.lr_scheduler_kwargs,  # type: ignore[arg-type]  # a str is parsed by now
            )
        return made

    def let_go(self) -> None:
        """See `Stoppable.let_go`; the discriminator's, too."""
        self.judge = self.discriminator
        self.d_optimizer = self.d_scheduler = None
        super().let_go()

    # ---- files

    def _write_shared(self, stage: Path) -> None:
        super()._write_shared(stage)
        saved.write(self, stage)

    def _own_part(self) -> dict[str, Any]:
        return {**super()._own_part(), "tally": self.tally.sums}

    def _bytes_needed(self) -> int:
        return super()._bytes_needed() + saved.size(self)

    def _weights(self) -> dict[str, Iterable[Tensor]]:
        return {**super()._weights(), **saved.weights(self)}

    def _check_weights(self, path: Path) -> None:
        super()._check_weights(path)
        saved.check_networks(self, path)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        saved.read_networks(self, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        saved.read_networks(self, Path(str(self.state.best_model_checkpoint)))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            with stamps.applied(self.changes, self.d_optimizer, self.d_scheduler):
                saved.read_optimizer(self, Path(checkpoint))

    def _go_on(self) -> None:
        if self._part is not None:
            self.tally.sums.copy_(self._part["tally"])
        super()._go_on()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the generator at the root (after training the averaged one), its raw weights and the other player."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            saved.write_players(self, Path(str(output_dir or self.args.output_dir)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the discriminator's figures since the last time beside the generator's loss."""
        if "loss" in logs:
            logs = {**logs, **self.tally.taken(self.task.tallied), "d_learning_rate": self.d_rate}
        super().log(logs, start_time)


class AfterStep(TrainerCallback):
    """Lets the other player and the average follow the generator's step."""

    def __init__(self, trainer: AdversarialTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.trainer.after_step()


def fitted(args: TrainOptions, betas: tuple[float, float]) -> TrainOptions:
    """Return the options as the loop is to see them.

    A whole update is one micro-batch to it; the last average is kept, unless the best checkpoint was asked for; and
    buffers are averaged after a step, so that those of the first process need not replace the others' in it.
    """
    made = copy.copy(args)
    made.gradient_accumulation_steps = 1
    made.adam_beta1, made.adam_beta2 = betas
    made.ddp_broadcast_buffers = bool(args.ddp_broadcast_buffers)
    if "load_best_model_at_end" in args.automatic:
        made.load_best_model_at_end = False
    return made
