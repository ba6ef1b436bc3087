"""Run the code on a card as printed, and say what came of holding the model that it made against the run.

python used_as_on_the_card.py README.md RUN VERDICT.json
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def main(card: Path, run: Path, verdict: Path) -> None:
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)[1], names)  # noqa: S102

    import torch

    from finetune.published import held_against
    from finetune.recipe import Recipe
    from finetune.reloading import load_run

    recipe, _, processor = load_run(run)
    model = names["model"]
    if recipe.task.kind == "text-vae":  # mapped from a file the weights lie at odd addresses, by which GRUs round
        for weight in model.parameters():
            weight.data = weight.data.clone()
    assert isinstance(recipe, Recipe)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    verdict.write_text(json.dumps(held_against(run, recipe, model, processor)), encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
