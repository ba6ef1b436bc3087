"""A recipe made small: its task, data, adapter and training options as they are, with few rows and a tiny model."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from finetune.selftest.models import tiny_model, without_dropout
from finetune.selftest.rows import sampled

if TYPE_CHECKING:
    from finetune.recipe import Recipe

BATCH = 8  # rows a step
LONGEST = {"block_size": 64, "max_length": 256, "max_source_length": 256, "max_target_length": 256}  # tokens
KEPT = (  # of the recipe's train section; the rest says when and where, which a few steps decide for themselves
    *("learning_rate", "head_learning_rate", "layer_decay", "freeze_layers", "weight_decay", "max_grad_norm", "optim"),
    *("rdrop_alpha", "adversarial", "adversarial_epsilon", "adversarial_steps", "adversarial_step_size"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "adam_beta1", "adam_beta2", "adam_epsilon", "seed"),
    *("train_sampling_strategy", "optim_args", "neftune_noise_alpha", "activation_checkpointing", "data_seed", "dp"),
)
QUIET = {  # of each section: says where and when, or how much, which few rows decide for themselves
    "data": (
        *("train", "validation", "test", "columns", "revision", "image", "sample_by", "encoding", "clean", "cache_dir"),
        *("max_train_rows", "max_validation_rows", "max_test_rows"),
    ),
    "model": ("path", "revision", "config", "gguf_file", "tokenizer", "sha256", "trust_remote_code"),
    "adapter": (),
    "train": (
        *("output_dir", "overwrite", "run_name", "report_to", "disable_tqdm", "max_hours", "allow_change", "use_cpu"),
        *("num_train_epochs", "max_steps", "warmup_steps", "gradient_accumulation_steps", "early_stopping_patience"),
        *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
    ),
    "evaluate": (
        *("resamples", "baselines", "reload", "reference_rows", "samples", "generated", "importance_samples"),
    ),
}
CADENCES = ("eval_", "save_", "logging_", "log_", "per_device_")  # what options of when begin with
UPDATES = 7  # of a game whose updates take so many rows that few rows make too few of them
FEW = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False, "logging_steps": 1}
FEW |= {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "bf16": False}
FEW |= {"per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH}
PLAIN = {"optim": "sgd", "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 1e6}
PLAIN |= {"num_train_epochs": 1}
DATA = {"leakage": "off", "duplicates": "off"}
EVALUATE = {"resamples": 0, "baselines": False, "reload": "same", "reference_rows": 4, "samples": 1}
EVALUATE |= {"generated": 8, "importance_samples": 4}


@dataclass
class Small:
    """The recipe twice: as it is, and without what draws by the batch; and what was changed."""

    own: dict[str, Any]  # sections: the recipe's optimiser, schedule, dropout
    exact: dict[str, Any]  # sections: plain SGD without dropout, whose steps are the same however they are cut
    notes: list[str] = field(default_factory=list)  # sentences

    def write(self, which: str, path: Path) -> Path:
        """Write one of the two as a recipe file."""
        path.write_text(yaml.safe_dump(getattr(self, which), sort_keys=False), encoding="utf-8")
        return path


def quickstart() -> Recipe:
    """Return a recipe of the quickstart's kind, of whose rows and weights nothing is there."""
    from finetune.recipe import Recipe

    return Recipe.from_dict(
        {
            "task": {"kind": "text-classification"},
            "data": {"train": "(none)"},
            "model": {"path": "bert"},
            "adapter": {"peft_type": "LORA", "r": 4, "target_modules": "auto"},
            "train": {"output_dir": "selftest", "learning_rate": 1e-3, "warmup_steps": 0.06},
        }
    )


def shrunk(recipe: Recipe, folder: Path) -> Small:
    """Return a recipe made small; its rows and weights are written into `folder`.

    Raises:
        UserError: the recipe's rows are there and are not right.
    """
    import torch

    from finetune.recipe import Recipe

    # Options as the recipe writes them, so that classes, labels and names are settled anew for the few rows.
    given = recipe.to_dict()
    data, task, notes = sampled(recipe, folder)
    task = {**deepcopy(given["task"]), **task}
    for name, longest in LONGEST.items():  # blocks are short, so that few rows fill enough of them
        if isinstance(getattr(recipe.task, name, None), int):
            task[name] = min(getattr(recipe.task, name), longest)
    if "distill" in task:
        del task["distill"]
        notes.append("task.distill: left out; a tiny model has no teacher of its own vocabulary")
    sections: dict[str, Any] = {"task": task, "data": {**data, **DATA, "cache_dir": str(folder / "cache")}}
    torch.manual_seed(0)
    model, exact_model, said = tiny_model(recipe, folder, sections)
    sections |= {"model": model, "evaluate": dict(EVALUATE)}
    if recipe.task.unit == "images":
        sections["evaluate"] |= {"samples": 1}
    if "adapter" in given:
        sections["adapter"] = deepcopy(given["adapter"])
        sections["adapter"].pop("layers_to_transform", None)
    sections["train"] = {**_kept(given["train"]), **FEW, "num_train_epochs": 2, "output_dir": str(folder / "run")}
    half = {name: True for name in ("bf16", "fp16") if getattr(recipe.train, name)}  # by the machine, where not given
    said += _left_out({**given, "train": {**given["train"], **half}}, sections)
    exact = deepcopy(sections)
    if getattr(recipe.task, "critic_steps", 1) > 1:
        sections["train"]["max_steps"] = UPDATES
    exact["model"] = exact_model
    exact["train"] |= PLAIN
    if exact["train"].pop("dp", None) is not None:
        said.append("accumulation, processes, padding, packing: without train.dp, whose draws nobody can repeat")
    for name in ("lr_scheduler_kwargs", "warmup_steps", "optim_args", "neftune_noise_alpha", "head_learning_rate"):
        exact["train"].pop(name, None)
    if exact["train"].pop("rdrop_alpha", None) is not None:
        said.append("accumulation, processes: without train.rdrop_alpha, whose dropout masks are drawn by the batch")
    if "adapter" in exact:
        without_dropout(exact["adapter"])
    norms = [(each["model"].get("config") or {}).get("generator_norm") for each in (sections, exact)]
    if norms[0] != norms[1]:
        said.append("accumulation, processes: without batch norm, which sees one micro-batch of one process")
    for each in (sections, exact):
        Recipe.from_dict(each)  # refuses here what would break every check
    return Small(sections, exact, [*notes, *said])


def _left_out(given: dict[str, Any], small: dict[str, Any]) -> list[str]:
    """Return a sentence on the options that the small recipe has not, or has otherwise."""
    names = [
        f"{section}.{name}"
        for section, quiet in QUIET.items()
        for name, value in given.get(section, {}).items()
        if name not in quiet and not name.startswith(CADENCES) and small.get(section, {}).get(name) != value
    ]
    return [f"left out, or otherwise here: {', '.join(names)}; they are not tried"] if names else []


def _kept(train: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in train.items() if name in KEPT}
    if kept.get("warmup_steps", 0) >= 1:
        kept["warmup_steps"] = min(kept["warmup_steps"], 3)
    if "freeze_layers" in kept:
        kept["freeze_layers"] = min(kept["freeze_layers"], 1)
    if any(word in str(kept.get("optim")) for word in ("8bit", "4bit", "paged", "fused", "apex")):
        kept["optim"] = "adamw_torch"
    return kept
