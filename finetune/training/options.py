"""The `train` section: Hugging Face's TrainingArguments, with what `option_tables` adds, re-defaults and refuses."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType

from finetune.errors import UserError
from finetune.training.devices import computes_bf16, has_accelerator
from finetune.training.limits import SEEDS, out_of_range
from finetune.training.option_tables import REFUSED, REFUSED_ACCELERATOR, RESUME
from finetune.training.private_options import DpOptions

PLATEAUS = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)  # schedules that watch a score
CLIPPED = 1.0  # the norm that a step's gradient is cut to, where the recipe does not say one
AUTOMATIC = (
    "max_grad_norm",
    "metric_for_best_model",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "load_best_model_at_end",
    "greater_is_better",
)


@dataclass
class TrainOptions(TrainingArguments):
    """Every option of TrainingArguments, under its own name.

    None stands for "decided from the device, the length of the run and the data"; `fitted_to` decides the last of
    these. Raises UserError for options that `option_tables.REFUSED` lists and for values that contradict each other.
    """

    head_learning_rate: float | None = None
    layer_decay: float | None = None
    freeze_layers: int = 0
    rdrop_alpha: float | None = None
    adversarial: Literal["fgm", "freelb"] | None = None
    adversarial_epsilon: float = 1.0
    adversarial_steps: int = 3
    adversarial_step_size: float = 0.3
    dp: DpOptions | None = None
    early_stopping_patience: int | None = None
    nan_budget: int = 0
    seeds: list[int] | None = None
    overwrite: bool = False
    max_hours: float | None = None
    allow_change: list[str] | None = None

    max_grad_norm: float | None = None  # type: ignore[assignment]
    logging_nan_inf_filter: bool = False
    logging_steps: float = 0.02
    eval_strategy: str | None = None  # type: ignore[assignment]
    eval_steps: float | None = None
    save_strategy: str | None = None  # type: ignore[assignment]
    save_steps: float | None = None  # type: ignore[assignment]
    save_total_limit: int | None = 2
    load_best_model_at_end: bool | None = None  # type: ignore[assignment]
    restore_callback_states_from_checkpoint: bool = True
    bf16: bool | None = None  # type: ignore[assignment]
    fp16: bool | None = None  # type: ignore[assignment]
    seed: int = 13
    ddp_find_unused_parameters: bool | None = False
    accelerator_config: dict[str, Any] | str | None = field(default=None)

    def __post_init__(self) -> None:
        self._refuse()
        self.automatic = frozenset(name for name in AUTOMATIC if getattr(self, name) is None)
        self._choose_device()
        if self.max_grad_norm is None:
            self.max_grad_norm = CLIPPED
        if self.data_seed is None:
            self.data_seed = self.seed
        if self.activation_checkpointing is None and self.gradient_checkpointing:  # the older name, without its warning
            self.activation_checkpointing = True
            self.activation_checkpointing_kwargs = self.gradient_checkpointing_kwargs
        if self.activation_checkpointing and self.activation_checkpointing_kwargs is None:
            self.activation_checkpointing_kwargs = {"use_reentrant": False}
        best = self.load_best_model_at_end
        self._set_cadence()
        self.load_best_model_at_end = False  # until `fitted_to` knows whether there is anything to choose on
        try:
            super().__post_init__()
        except ValueError as error:
            raise UserError(f"train: {' '.join(str(error).split())}") from error
        self.load_best_model_at_end = bool(best)

    def _refuse(self) -> None:
        defaults: dict[str, Any] = {each.name: each for each in dataclasses.fields(TrainingArguments)}
        for name, instead in REFUSED.items():
            known = defaults.get(name)
            if known is None:
                continue
            plain = known.default_factory() if known.default is dataclasses.MISSING else known.default
            if getattr(self, name) != plain and not (name == "do_eval" and self.eval_strategy not in (None, "no")):
                raise UserError(f"train.{name} is not an option here: {instead}.")
        for wrong in self._wrong():
            raise UserError(f"train.{wrong}.")
        if self.train_sampling_strategy == "batch_rebalance":
            raise UserError("train.train_sampling_strategy: batch_rebalance is not offered; use group_by_length.")
        if isinstance(self.accelerator_config, dict):
            for key in self.accelerator_config:
                if key in REFUSED_ACCELERATOR:
                    raise UserError(f"train.accelerator_config.{key} is not an option: {REFUSED_ACCELERATOR[key]}.")

    def _wrong(self) -> Iterator[str]:
        """Yield what is wrong with numbers, and with what options that are added here say together."""
        yield from out_of_range(self)
        if self.adversarial not in (None, "fgm", "freelb"):
            yield f"adversarial is {self.adversarial}; known: fgm, freelb"
        if self.rdrop_alpha is not None and self.adversarial is not None:
            yield "rdrop_alpha and train.adversarial change the loss both; leave one out"
        if self.seeds is not None:
            yield from self._wrong_seeds(self.seeds)

    def _wrong_seeds(self, seeds: list[int]) -> Iterator[str]:
        if not seeds:
            yield "seeds is empty; give some, such as [1, 2, 3], or leave it out"
        for place, seed in enumerate(seeds):
            if seed in seeds[:place]:
                yield f"seeds has {seed} twice: the second run would be the first again"
            if not 0 <= seed < SEEDS:
                yield f"seeds has {seed}; give whole numbers from 0 to {SEEDS - 1}"
        if self.seed != 13:  # its default
            yield f"seed is {self.seed}, and train.seeds says which are trained; leave one out"

    def _choose_device(self) -> None:
        asked = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1", "yes")
        self.use_cpu = self.use_cpu or asked or not has_accelerator()
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        sharded = bool(self.deepspeed) or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"
        if self.bf16 is None and self.fp16 is None and launched in ("bf16", "fp16"):
            self.bf16, self.fp16 = launched == "bf16", launched == "fp16"
        if self.bf16 is None:  # DeepSpeed turns the weights themselves to bf16, which a CPU gains nothing from
            self.bf16 = not self.fp16 and computes_bf16(self.use_cpu) and not (sharded and self.use_cpu)
        self.fp16 = bool(self.fp16)

    def _set_cadence(self) -> None:
        """Fill in the cadence that the recipe left out, from the half that it gave, else from the run's length."""
        one_pass = self.max_steps > 0 or self.num_train_epochs <= 1
        strategy, share = ("steps", 0.1 if self.max_steps > 0 else 0.25) if one_pass else ("epoch", 0.25)
        evaluate = self.eval_strategy or ("steps" if self.eval_steps else None)
        save = self.save_strategy or ("steps" if self.save_steps else None)
        follows = save if save in ("steps", "epoch") else strategy
        self.eval_strategy = evaluate or follows
        self.save_strategy = save or (evaluate if evaluate in ("steps", "epoch") else strategy)
        self.eval_steps, self.save_steps = (
            self.eval_steps or (self.save_steps if save == "steps" else None) or share,
            self.save_steps or (self.eval_steps if evaluate == "steps" else None) or share,
        )

    @functools.cached_property
    def _setup_devices(self) -> Any:
        """Return the device, with one GPU a process: several in one process would be DataParallel by accident."""
        device = super()._setup_devices
        self._n_gpu = min(self._n_gpu, 1)
        return device


def fitted_to(
    options: TrainOptions, has_validation: bool, score: str | None = None, greater_is_better: bool = True
) -> TrainOptions:
    """Return the options with everything decided that depends on the data.

    Args:
        options: as read from the recipe; left as it is.
        has_validation: whether there are rows to evaluate on.
        score: the task's score that picks the best checkpoint, without "eval_".
        greater_is_better: whether a larger score is a better one.

    Raises:
        UserError: an option needs validation rows and there are none, or the two cadences cannot work together.
    """
    fitted = copy.copy(options)
    if not has_validation:
        return _without_validation(fitted)
    if "metric_for_best_model" in options.automatic:
        fitted.metric_for_best_model = f"eval_{score}"
        if "greater_is_better" in options.automatic:
            fitted.greater_is_better = greater_is_better
    elif str(fitted.metric_for_best_model).removeprefix("eval_") == score:
        fitted.greater_is_better = greater_is_better
    elif "greater_is_better" in options.automatic:
        raise UserError(
            f"train.metric_for_best_model is {fitted.metric_for_best_model}: say with train.greater_is_better "
            "whether a larger one is better."
        )
    if fitted.lr_scheduler_type in PLATEAUS:
        better = {"mode": "max" if fitted.greater_is_better else "min"}
        fitted.lr_scheduler_kwargs = {**better, **dict(fitted.lr_scheduler_kwargs or {})}  # type: ignore[arg-type]  # a str is parsed by now
    if "load_best_model_at_end" in options.automatic:
        fitted.load_best_model_at_end = _cadences_agree(fitted)
    if fitted.eval_strategy == IntervalStrategy.NO and fitted.early_stopping_patience is not None:
        raise UserError("train.early_stopping_patience needs evaluations: set train.eval_strategy to epoch or steps.")
    try:
        fitted._validate_args()
    except ValueError as error:
        raise UserError(f"train: {' '.join(str(error).split())}") from error
    return fitted


def fitted_to_answer(options: TrainOptions) -> TrainOptions:
    """Return the options of a trainer that only answers: what they say of evaluations on the way is of the past."""
    fitted = copy.copy(options)
    fitted.eval_strategy, fitted.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
    fitted.do_eval, fitted.load_best_model_at_end, fitted.early_stopping_patience = False, False, None
    return fitted


def _without_validation(fitted: TrainOptions) -> TrainOptions:
    wanted = {
        "eval_strategy": "eval_strategy" not in fitted.automatic and fitted.eval_strategy != IntervalStrategy.NO,
        "load_best_model_at_end": fitted.load_best_model_at_end,
        "early_stopping_patience": fitted.early_stopping_patience is not None,
        "save_strategy": fitted.save_strategy == SaveStrategy.BEST,
    }
    for name, given in wanted.items():
        if given:
            raise UserError(f"train.{name} needs rows to evaluate on: add data.validation, or leave it out.")
    fitted.eval_strategy, fitted.do_eval = IntervalStrategy.NO, False
    fitted.load_best_model_at_end = False
    return fitted


def _cadences_agree(options: TrainOptions) -> bool:
    if options.save_strategy == SaveStrategy.BEST:
        return True
    if options.eval_strategy == IntervalStrategy.NO or options.eval_strategy != options.save_strategy:
        return False
    if options.eval_strategy == IntervalStrategy.EPOCH or options.eval_steps == options.save_steps:
        return True
    evaluate, save = float(options.eval_steps or 0), float(options.save_steps or 0)
    return evaluate >= 1 and save >= 1 and save % evaluate == 0


def resume_stamp(options: TrainOptions) -> dict[str, Any]:
    """Return the options that a resumed run must not change, as plain values."""
    values = {name: getattr(options, name) for name in RESUME}
    private = {} if options.dp is None else {name: str(value) for name, value in dataclasses.asdict(options.dp).items()}
    if options.early_stopping_patience is not None or options.lr_scheduler_type in PLATEAUS:
        values |= {name: getattr(options, name) for name in ("eval_strategy", "eval_steps", "eval_delay")}
    return {name: getattr(value, "value", value) for name, value in values.items()} | {"dp": private or None}
