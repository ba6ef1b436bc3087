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

    from finetune.published import held_against
    from finetune.reloading import load_run

    recipe, _, processor = load_run(run)
    model = names["model"]
    if recipe.task.kind == "text-vae":  # mapped from a file the weights lie at odd addresses, by which GRUs round
        for weight in model.parameters():
            weight.data = weight.data.clone()
    if recipe.task.kind == "image-gan":  # some of its scores are the discriminator's, which lies beside the generator
        from huggingface_hub import snapshot_download

        model.name_or_path = snapshot_download(model.name_or_path)
    verdict.write_text(json.dumps(held_against(run, recipe, model, processor)), encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
