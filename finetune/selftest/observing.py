"""Train a tiny recipe for a few steps and keep every number that two ways of doing it must share."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from finetune.preparation import Prepared
    from finetune.recipe import Recipe


class Interrupted(Exception):
    """Ends a training in the midst of it, as a kill would."""


@dataclass(frozen=True)
class Observed:
    """What a few steps leave."""

    losses: list[float]
    norms: list[float]  # of the gradient, before clipping
    rates: list[list[float]]  # a step: of each group of parameters of each player, the share of its own learning rate
    weights: dict[str, Tensor]
    trainer: Any

    @property
    def steps(self) -> list[tuple[float, float]]:
        """(loss, gradient norm) of each step."""
        return list(zip(self.losses, self.norms, strict=True))


def observe(prepared: Prepared, resume: bool = False, until: int | None = None, **train: Any) -> Observed:
    """Train as `train` does, from a fresh model, and return what was seen; `until`: the step that breaks off.

    Raises:
        Interrupted: `until` was reached.
    """
    from transformers import TrainerCallback, set_seed

    from finetune.recipe_writing import changed_options
    from finetune.run import build_trainer, load_model

    recipe = prepared.recipe
    fixed = {"dp": recipe.train.dp, "use_cpu": True, "bf16": False}  # else what an accelerator here has is left out
    options = type(recipe.train)(**{**changed_options(recipe.train), **fixed, **train})
    recipe = replace(recipe, train=options)
    set_seed(options.seed)
    model, new = load_model(recipe, prepared.processor)
    trainer = build_trainer(replace(prepared, recipe=recipe), model, new)
    rates: list[list[float]] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if until is not None and state.global_step == until:
                raise Interrupted

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            both = (kwargs["optimizer"], getattr(trainer, "d_optimizer", None))  # the second is a discriminator's
            groups = [group for each in both if each is not None for group in each.param_groups]
            rates.append([group["lr"] / group["initial_lr"] for group in groups if group.get("initial_lr")])

    trainer.add_callback(Watch())
    trainer.discarded = Path(str(options.output_dir))
    trainer.train(resume_from_checkpoint=resume)
    logged = [each for each in trainer.history if "loss" in each]
    trained = {name: each.detach().clone() for name, each in trainer.model.named_parameters() if each.requires_grad}
    return Observed(
        [each["loss"] for each in logged],
        [each.get("grad_norm", float("nan")) for each in logged],
        rates,
        trained,
        trainer,
    )


def draws(trainer: Any) -> bool:
    """Say whether a training draws anything by its seed: an order of rows, new weights, dropout, noise."""
    task, args, model = trainer.task, trainer.args, trainer.sampled_model()
    new = trainer.head_parameters or hasattr(model, "peft_config") or not model.config.name_or_path
    noise = task.draws or getattr(task, "flip", False) or args.neftune_noise_alpha
    return bool(args.train_sampling_strategy != "sequential" or new or noise or any(map(_drops, model.modules())))


def _drops(module: Any) -> bool:
    shares = [value for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]
    return any(shares) or ("Dropout" in type(module).__name__ and module.p > 0)


def scores(trainer: Any, prepared: Prepared, size: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return {score: (value, n)} of the held-out rows, and the answers, with `size` rows a batch."""
    inputs = prepared.encoded["validation"].inputs
    trainer.args.per_device_eval_batch_size = size
    answers = trainer.answers(inputs)
    found = prepared.recipe.task.score(answers, inputs, resamples=0)
    return {name: (float(each.value), each.n) for name, each in found.items()}, answers


def observe_together(recipe: Recipe, verdict: Path) -> None:
    """Do what `observe` and `scores` do in each of the processes that a profile started; the first writes `verdict`.

    The file says how many processes an all-reduce of 1 counted: what a launcher announced is no proof.
    """
    import torch

    from finetune.preparation import prepare
    from finetune.training import ranks

    prepared = prepare(recipe)
    seen = observe(prepared)
    found, _ = scores(seen.trainer, prepared, 2)
    world = ranks.summed(torch.ones(1, dtype=torch.float64), seen.trainer.args.device)
    if seen.trainer.is_world_process_zero():
        content = {"world": int(world[0]), "steps": seen.steps, "scores": found}
        verdict.write_text(json.dumps(content), encoding="utf-8")
    seen.trainer.accelerator.wait_for_everyone()
