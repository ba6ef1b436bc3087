"""Training that tells little of any one row: DP-SGD in the trainer's own loop.

Opacus keeps the account; its GradSampleModule is not used: its hooks need the batch first in every layer, which the
head of a masked language model, asked at hidden places alone, has not. Each row has a backward pass of its own instead,
which any task and any layer can have. The draws of rows and of noise come from the system's entropy and are kept
nowhere: with a seed that a run's recipe tells, anyone could take the noise away again. So a private run cannot be
repeated bit for bit, and a resumed one goes on with other draws.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Sampler

from finetune.errors import UserError
from finetune.training import batching
from finetune.training.dealing import NO_ROW, Indexed
from finetune.training.guarded import Carried
from finetune.training.options import TrainOptions
from finetune.training.private_options import DpOptions, noise_for, spent, told
from finetune.training.trainer import Trainer

TWISTER = 624  # words of 32 bits


def secret(device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator that nobody can set up again; it comes from the system's entropy.

    Elsewhere than on a CPU as a seed of 63 bits. The seed of torch's generator on a CPU is no more than 32 bits
    (at::mt19937), which can be tried out: there all of the state is drawn.
    """
    made = torch.Generator(device)
    if made.device.type != "cpu":
        return made.manual_seed(int.from_bytes(os.urandom(8)) >> 1)
    state = made.get_state().view(torch.int64).clone()  # CPUGeneratorImplStateLegacy: three words, then the twister's
    state[3 : 3 + TWISTER] = torch.tensor(list(struct.unpack(f"<{TWISTER}I", os.urandom(4 * TWISTER))))
    made.set_state(state.view(torch.uint8))
    return made


class Poisson(Sampler[list[int]]):
    """Deals rows by chance: in every step each row is there with the same chance, whatever the others are.

    A step is `pieces` micro-batches; one without a row holds a stand-in (~0), which weighs nothing.
    """

    def __init__(self, rows: int, expected: int, pieces: int) -> None:
        self.rows, self.rate, self.pieces = rows, expected / rows, pieces
        self.steps = -(-rows // expected)  # of an epoch
        self.generator = secret()

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.steps):
            taken = (torch.rand(self.rows, generator=self.generator) < self.rate).nonzero()[:, 0].tolist()
            for piece in range(self.pieces):
                yield taken[piece :: self.pieces] or [~0]

    def __len__(self) -> int:
        return self.steps * self.pieces


class PrivateTrainer(Trainer):
    """Trains with `train.dp`: Poisson batches, a gradient a row, cut and made noisy before the optimizer sees it.

    A row's gradient is that of its own mean loss, so that all rows count alike, and a step divides by the expected
    number of rows, which tells nothing of who was there. Training losses and counts of tokens, which would tell, are
    neither logged nor kept.
    """

    counts_tokens = False

    noise: float
    dp: DpOptions

    def __init__(self, *, model: Any, args: TrainOptions, train_inputs: Any, **given: Any) -> None:
        assert args.dp is not None
        self.dp = args.dp
        _refuse(self.dp, model, args, train_inputs)  # before anything is written
        super().__init__(model=model, args=args, train_inputs=train_inputs, **given)
        self.args.max_grad_norm = 0.0  # rows are cut, and their noisy sum is not cut again
        self._expected = _expected(args)
        self._generator = secret(self.args.device)
        self._noisy = False

    @property
    def privacy(self) -> dict[str, Any]:
        """What is promised after the steps so far, those of before a resume among them; epsilon None: nothing."""
        rate = self._expected / len(self.train_dataset)
        steps = self.state.global_step
        most = self.dp.max_grad_norm
        return {
            "epsilon": spent(self.noise, rate, steps, self.dp.delta), "delta": self.dp.delta, "steps": steps,
            "noise_multiplier": self.noise, "max_grad_norm": most if math.isfinite(most) else None,
            "sample_rate": rate, "accountant": "rdp",
        }  # fmt: skip

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        rate = self._expected / len(self.train_dataset)
        self.noise = noise_for(self.dp, rate, max_steps)
        reached = super()._init_training_state(max_steps, *args, **kwargs)
        if self.noise == 0:
            print("Beware: train.dp without noise promises nothing.", flush=True)
        else:
            whole = {**self.privacy, "steps": max_steps, "epsilon": spent(self.noise, rate, max_steps, self.dp.delta)}
            print(f"private: {told(whole)}", flush=True)
        return reached

    def get_train_dataloader(self) -> DataLoader:
        inputs: Any = self.train_dataset
        collate = self.data_collator
        options = self._loader_options() | {"collate_fn": lambda rows: {"rows": [collate([row]) for row in rows]}}
        sampler = Poisson(len(inputs), self._expected, self.args.gradient_accumulation_steps)
        return DataLoader(Indexed(inputs), batch_sampler=sampler, **options)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        """Return the micro-batches of one step, each a list of batches of one row; stand-ins are left out."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        self._carried, self._losses, self._noisy = [], [], False
        self._loss_before = self._tr_loss.clone()
        self.wishes.agree(self.wishes.own())
        for batch in batches:
            kept = []
            for row in batch["rows"]:
                index, row_ids, number = row.pop("index"), row.pop("row_id", []), row.pop("row", None)
                if int(index[0]) == NO_ROW:
                    continue
                if self.task.draws:
                    step, most = self.state.global_step, self.state.max_steps
                    row |= batching.drawn(self.args.seed, step, number, progress=step / most)
                if float(self.task.weight(row)) > 0:
                    kept.append(row)
                    self._carried.append(Carried(list(row_ids), stand_in=False))
            batch["rows"] = kept
        return batches, 1.0

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Add the noise, once a step, and each row's cut gradient to the gradients; return 0, for losses tell."""
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        trained = [each for each in model.parameters() if each.requires_grad]
        if not self._noisy:
            self._noisy = True
            self._start(trained)
        for row in self._prepare_inputs(inputs)["rows"]:
            with self.compute_loss_context_manager():
                total, _ = self.task.loss(model, row)  # type: ignore[arg-type]  # as `compute_loss` is given it
            loss = total / float(self.task.weight(row))
            self._losses.append(loss.detach())
            slopes = torch.autograd.grad(loss, trained, allow_unused=True)
            there = [(each, slope) for each, slope in zip(trained, slopes, strict=True) if slope is not None]
            norm = torch.stack([slope.float().square().sum() for _, slope in there]).sum().sqrt()
            share = torch.clamp(self.dp.max_grad_norm / norm.clamp(min=1e-12), max=1.0) / self._expected
            for each, slope in there:
                assert each.grad is not None
                each.grad.add_(slope * share.to(slope.dtype))
        return torch.zeros((), device=self.args.device)

    def _start(self, trained: list[nn.Parameter]) -> None:
        """Begin the step's gradients with its noise."""
        deviation = 0.0 if self.noise == 0 else self.noise * self.dp.max_grad_norm / self._expected
        for each in trained:
            noise = torch.zeros(each.shape, device=each.device)
            if deviation:
                noise.normal_(0.0, deviation, generator=self._generator)
            each.grad = noise.to(each.dtype)

    def _stop_unless_finite(self, norm: Any) -> None:
        if self._losses:  # a step may hold no row
            super()._stop_unless_finite(norm)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: rows come one by one, and are not counted so."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what does not tell of single training rows; see Trainer.log."""
        quiet = {name: math.nan if name in ("loss", "train_loss") else each for name, each in logs.items()}
        super().log(quiet, start_time)


def _expected(args: TrainOptions) -> int:
    """Return how many rows a step has on average."""
    return args.per_device_train_batch_size * args.gradient_accumulation_steps


def _refuse(dp: DpOptions, model: nn.Module, args: TrainOptions, inputs: Any) -> None:
    """Raise UserError where the promise would not hold."""
    if args.world_size > 1 or args.deepspeed or args.fsdp:
        raise UserError("train.dp: private training runs in one process; start it without a profile.")
    rows = len(inputs)
    if len(set(inputs["row_id"])) < rows:
        raise UserError(
            "train.dp: one row makes several inputs, and would count several times: set data.on_long to truncate "
            "or drop, and mix no files by weight."
        )
    if _expected(args) > rows:
        raise UserError(f"train.dp: steps of {_expected(args)} rows are expected, and there are {rows}.")
    if dp.delta >= 1 / rows:
        raise UserError(f"train.dp.delta: {dp.delta:g} is no promise for {rows:,} rows; give less than 1/rows.")
    if any(isinstance(each, _BatchNorm) for each in model.modules()):
        raise UserError("train.dp: batch normalisation mixes rows, and this model has it.")
