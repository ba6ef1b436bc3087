"""Tiny players, images and their trainer, for tests of adversarial training in this process and in launched ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback

from finetune.models.gan import GANConfig, Generator
from finetune.tasks.image_gan import ImageGAN
from finetune.training.adversarial import AdversarialTrainer
from finetune.training.options import TrainOptions, fitted_to

SGD = {"optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant", "learning_rate": 0.05}
ADAM = {"optim": "adamw_torch", "learning_rate": 1e-3, "lr_scheduler_type": "linear", "warmup_steps": 2}
PLAIN = {"bf16": False, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}
DENSE = {"preset": "mlp", "hidden_sizes": [12, 12]}
CONVOLUTIONS = {"preset": "dcgan", "channels": 4, "generator_norm": "none", "initializer_range": 0.2}

# One game a loss, with every penalty, augmentation and network in at least one of them: (task, model).
GAMES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bce": ({"loss": "bce", "flip": True, "instance_noise": 0.3, "r1_gamma": 0.2}, DENSE),
    "hinge": ({"loss": "hinge", "diffaugment": ("translation", "cutout")}, {**DENSE, "spectral_norm": True}),
    "wgan-gp": ({"loss": "wgan-gp", "n_critic": 2}, DENSE),
    "r3gan": ({"loss": "r3gan", "diffaugment": ("colour", "translation"), "condition": "label"}, CONVOLUTIONS),
}
NORMED = ({"loss": "hinge", "n_critic": 2}, {**CONVOLUTIONS, "generator_norm": "batch", "spectral_norm": True})


def images(count: int, seed: int = 0) -> Dataset:
    """Return inputs of grey images of 8 x 8 pixels: class 0 is bright above, class 1 below."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 80, (count, 8, 8), dtype=np.uint8)
    classes = [number % 2 for number in range(count)]
    for image, label in zip(pixels, classes, strict=True):
        image[4 * label : 4 * label + 4] += 160
    return Dataset.from_dict(
        {
            "image": [each.tobytes() for each in pixels],
            "label": classes,
            "row": list(range(count)),
            "row_id": [f"images.npz:{number + 1}" for number in range(count)],
            "length": [1] * count,
        }
    )


def trainer(
    game: tuple[dict[str, Any], dict[str, Any]],
    folder: Path | None = None,
    train: Dataset | None = None,
    evaluate: Dataset | None = None,
    **options: Any,
) -> AdversarialTrainer:
    """Return the trainer of a game, its players as one seed makes them."""
    torch.manual_seed(7)
    task = ImageGAN(**{"image_size": 8, "num_channels": 1, "labels": ("0", "1"), "ema_decay": 0.9, **game[0]})
    classes = 2 if task.condition else 0
    config = GANConfig(image_size=8, num_channels=1, latent_dim=4, num_classes=classes, **game[1])
    args = TrainOptions(
        output_dir=str(folder or tempfile.mkdtemp()),
        **{**PLAIN, **options},
    )
    return AdversarialTrainer(
        task=task,
        model=Generator(config),
        args=fitted_to(args, evaluate is not None, task.best_score, task.best_is_greatest),
        train_inputs=images(33) if train is None else train,
        eval_inputs=evaluate,
        processor=SimpleNamespace(image_mean=[0.5], image_std=[0.5]),
        stamp={"data": {"train": "abc"}},
    )


def state(run: AdversarialTrainer) -> dict[str, Tensor]:
    """Return everything that a trained run holds of both players, by name: weights, averages and buffers."""
    raw = run.model.state_dict() if run.raw is None else run.raw
    parts = {"average": run.model.state_dict(), "generator": raw, "discriminator": run.discriminator.state_dict()}
    return {f"{part}.{name}": each.detach().clone() for part, held in parts.items() for name, each in held.items()}


def optimisers(run: AdversarialTrainer) -> dict[str, Any]:
    """Return the state of both optimisers and schedules, tensors as lists."""
    held = {"g": run.optimizer, "d": run.d_optimizer, "g_schedule": run.lr_scheduler, "d_schedule": run.d_scheduler}
    return {name: _plain(each.state_dict()) for name, each in held.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if isinstance(value, Tensor) else value


def history(run: AdversarialTrainer) -> list[dict[str, float]]:
    """Return what was logged, without what tells of time."""
    timed = ("tokens_per_second", "eval_runtime", "eval_rows_per_second", "train_runtime")
    return [{name: each for name, each in row.items() if name not in timed} for row in run.history]


def gradients_of(run: AdversarialTrainer) -> list[list[Tensor]]:
    """Return a list that fills, as the run trains, with what each optimiser step of either player is taken from."""
    found: list[list[Tensor]] = []

    def keep(network: Any) -> None:
        found.append([each.grad.clone() for each in network.parameters()])

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            run.d_optimizer.optimizer.register_step_pre_hook(lambda *_: keep(run.discriminator))

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            keep(run.model)

    run.add_callback(Watch())
    return found


class Killed(BaseException):
    """Ends a training as a kill would."""


def killed_after(run: AdversarialTrainer, step: int) -> None:
    """Train, and end after this many updates."""
    inner = run.callback_handler.on_step_begin

    def begin(args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if state.global_step == step:
            raise Killed
        return inner(args, state, control, **kwargs)

    run.callback_handler.on_step_begin = begin
    try:
        run.train()
    except Killed:
        return
    raise AssertionError("the training ended before it was killed")


def same(one: Any, other: Any) -> bool:
    """Say whether two trained runs are the same to the bit: players, averages, optimisers, schedules, log."""
    left, right = state(one), state(other)
    weights = left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    return weights and optimisers(one) == optimisers(other) and history(one) == history(other)
