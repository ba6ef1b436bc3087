"""The recipe that `finetune init` writes, with a comment on every line that was a guess."""

from __future__ import annotations

import json
from pathlib import Path

from finetune.drafting.guesses import Draft, of_file, of_folder
from finetune.errors import UserError

HEADER = """# {command}
# Seen: {seen}.
# Taken for {kind}: {why}. Another kind of task: write task.kind anew; `finetune schema` prints all options.
#
#     finetune check {recipe}        reads recipe and data, trains nothing
#     finetune train {recipe}
#
# What is turned first: train.learning_rate, {second}, train.seed.
"""


def draft(data: Path, output: Path | None = None, model: str | None = None) -> Path:
    """Look at a file or a folder of images, write a commented recipe for it, and return the recipe's path.

    Args:
        data: one file of rows, or a folder of images in folders by class.
        output: where the recipe goes; recipe.yaml when left out.
        model: Hub id or folder that is fine-tuned; a usual one of the task's when left out.

    Raises:
        UserError: there is no such file, nothing of it can be taken for a task, or something lies at `output`.
    """
    from finetune.recipe import Recipe

    path = output or Path("recipe.yaml")
    if path.exists():
        raise UserError(f"--output: {path} is there already. Give another name.")
    if not data.exists():
        raise UserError(f"{data}: no such file.")
    made = of_folder(data) if data.is_dir() else of_file(data)
    text = _written(made, data, path, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.partial")
    staged.write_text(text, encoding="utf-8")
    try:
        Recipe.read(staged)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return path


def shown(path: Path) -> str:
    """Return the recipe as it was written, and where."""
    return f"{path.read_text(encoding='utf-8').rstrip()}\n\nwritten: {path}"


def _written(made: Draft, data: Path, path: Path, model: str | None) -> str:
    """Return the recipe's YAML."""
    quoted = json.dumps(str(data))
    fraction = "{fraction: 0.1, stratify: true}" if made.stratify else "{fraction: 0.1}"
    adapted = made.rank is not None
    lines = [
        HEADER.format(command=f"Written by: finetune init {data}", seen=made.seen, kind=made.kind, why=made.why,
                      recipe=path, second="adapter.r" if adapted else "train.num_train_epochs"),
        "task:",
        f"  kind: {made.kind}",
        *(f"  {name}: {value}" for name, value in made.task.items()),
        "",
        "data:",
        f"  train: {quoted}",
        f"  validation: {fraction} # chooses the best checkpoint; or a file of its own",
        "  # test: FILE # scored once, at the end: rows that nothing was chosen on",
        "",
        "model:",
        *([f"  path: {json.dumps(model)}"] if model else [f"  {name}: {value}" for name, value in made.model.items()]),
        *(["", "adapter: # leave this section out to train every weight, at a tenth of the learning rate",
           "  peft_type: LORA",
           f"  r: {made.rank} # the rank: what the adapter can hold", f"  lora_alpha: {2 * (made.rank or 0)}",
           "  target_modules: auto # every linear layer of the blocks"] if adapted else []),
        "",
        "train:",
        f"  output_dir: runs/{data.name.split('.')[0]}",
        *(f"  {name}: {value}" for name, value in made.train.items()),
        "  num_train_epochs: 3",
        "  per_device_train_batch_size: 32",
        "  seed: 13",
        "",
    ]  # fmt: skip
    return "\n".join(lines)
