"""The four kinds of training that are killed, stopped and starved: recipes of a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import yaml

KINDS = {
    "whole": ("causal-lm", "whole"),
    "lora": ("text-classification", "lora"),
    "vae": ("image-vae", "whole"),
    "gan": ("image-gan", "whole"),
}
SAVE_STEPS = 3
TRAIN = {
    "num_train_epochs": 3, "optim": "adamw_torch", "learning_rate": 1e-3, "lr_scheduler_type": "cosine",
    "save_strategy": "steps", "save_steps": SAVE_STEPS, "eval_strategy": "steps", "eval_steps": SAVE_STEPS,
    "logging_steps": 2, "save_total_limit": 2, "bf16": False,
}  # fmt: skip


def make_home(folder: Path) -> Path:
    """Make the models and rows of the kinds."""
    tiny.save_encoder(folder / "bert")
    tiny.save_decoder(folder / "gpt2", dropout=0.1)
    for name, count, seed in (("train", 64, 1), ("validation", 18, 2), ("test", 22, 3)):
        tiny.write_rows(folder / f"{name}.jsonl", tiny.sentences(count, seed))
        tiny.write_images(folder / f"{name}.npz", count, seed)
    return folder


def recipe(home: Path, folder: Path, kind: str, processes: int, **train: Any) -> Path:
    """Write the recipe of a run at FOLDER/run, and return its path."""
    made = tiny.sections(home, folder / "run", *KINDS[kind])
    made["data"]["cache_dir"] = str(folder / "cache")  # of this run alone: it is killed while it writes there too
    made["train"] |= {**TRAIN, "per_device_train_batch_size": 8 // processes, **train}
    made["evaluate"] |= {"baselines": False}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(made), encoding="utf-8")
    return path
