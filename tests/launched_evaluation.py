"""Score untrained models on n rows, b at a time, in every process of a launch, or in one: FILE gets what was found.

accelerate launch --config_file accelerate_configs/cpu.yaml tests/launched_evaluation.py FILE RECIPE RECIPE …
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from finetune.endings import leave_group
from finetune.preparation import prepare
from finetune.recipe import Recipe
from finetune.run import build_trainer, load_model
from finetune.training import ranks

BATCHES = (1, 2, 4, 16)
COUNTS = (15, 16, 17)  # modulo every batch: 0, 1 and one less than it


def found(path: str) -> dict[str, Any]:
    """Return {"n/b": {score: [value, n]}} of the test rows."""
    torch.manual_seed(3)
    prepared = prepare(Recipe.read(path))
    recipe = prepared.recipe
    model, new = load_model(recipe, prepared.processor)
    with torch.no_grad():  # far from chance, so that rows differ
        for parameter in model.parameters():
            parameter.mul_(3.0)
    trainer = build_trainer(prepared, model, new)
    told = {}
    for count in COUNTS:
        inputs = prepared.encoded["test"].inputs.select(range(count))
        for size in BATCHES:
            trainer.args.per_device_eval_batch_size = size
            scores = recipe.task.score(trainer.answers(inputs), inputs, resamples=0)
            told[f"{count}/{size}"] = {name: [float(each.value), each.n] for name, each in scores.items()}
    return told


def main(file: str, paths: list[str]) -> None:
    """Write what is found; the number of processes is counted by an all-reduce."""
    result = {"found": {path: found(path) for path in paths}}
    result["world"] = int(ranks.summed(torch.ones(1), torch.device("cpu"))[0])
    if ranks.rank() == 0:
        Path(file).write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
    leave_group(0)
