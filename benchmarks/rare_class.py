"""What helps a class of ten rows: class weights, repeated rows, or samples of a VAE or of a GAN?

python benchmarks/rare_class.py [CLASS] [ROWS]

On the bundled digits, for three seeds: CLASS (8) is cut to ROWS (10) training rows, the rest stays. A conditional VAE
and a conditional GAN learn from those rows; `finetune sample --class` then draws as many as the class lacks of the
others' mean. The same classifier learns from each set, in as many steps. Printed: recall of the class, its precision
and macro-F1 on the untouched test rows, with 95 % intervals over rows, and the means over seeds. All runs and samples
go to a temporary folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from finetune import Recipe, train
from finetune.reuse import sample

SEEDS = (13, 14, 15)
DATA = Path("recipes/data/digits")
ARMS = ("plain", "class weights", "repeated", "VAE samples", "GAN samples")
QUICK = {"baselines": False, "reload": "same", "generated": 100, "importance_samples": 10, "resamples": 0}
GENERATORS: dict[str, dict[str, Any]] = {
    "VAE samples": {
        "task": {"kind": "image-vae", "condition": "label"},
        "model": {"config": {"model_type": "finetune-vae", "hidden_sizes": [256], "latent_dim": 8}},
        "train": {"max_steps": 3000, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 0},
    },
    "GAN samples": {
        "task": {"kind": "image-gan", "condition": "label"},
        "model": {
            "config": {"model_type": "finetune-gan", "preset": "mlp", "latent_dim": 32, "hidden_sizes": [256, 256]}
        },
        "train": {"max_steps": 4000, "learning_rate": 2e-4, "lr_scheduler_type": "constant", "max_grad_norm": 0},
    },
}  # fmt: skip
CLASSIFIER: dict[str, Any] = {
    "task": {"kind": "image-classification"},
    "model": {"config": {"model_type": "finetune-image-classifier", "preset": "lenet"}},
    "train": {"max_steps": 600, "learning_rate": 1e-3, "lr_scheduler_type": "cosine", "weight_decay": 0.01},
}


def main() -> int:
    """Print a line a seed and arm, and the means."""
    name = sys.argv[1] if len(sys.argv) > 1 else "8"
    rows = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            place = Path(folder) / str(seed)
            place.mkdir()
            lacking = cut(place / "cut.npz", int(name), rows, seed)
            for arm in ARMS:
                scores = classified(place, arm, name, lacking, seed)
                found[arm].append(scores)
                print(f"seed {seed}  {arm:<14} " + "  ".join(shown(scores, each) for each in told(name)), flush=True)
    for arm, held in found.items():
        means = (f"{each} {statistics.mean(scores[each]['value'] for scores in held):.3f}" for each in told(name))
        print(f"mean     {arm:<14} " + "  ".join(means))
    return 0


def told(name: str) -> tuple[str, ...]:
    """Return the scores that are printed."""
    return (f"recall/{name}", f"precision/{name}", "macro_f1")


def cut(path: Path, number: int, rows: int, seed: int) -> int:
    """Write the training rows with only some of one class, and return how many it lacks of the others' mean."""
    images, labels = (np.load(DATA / "train.npz")[name] for name in ("image", "label"))
    of_class = np.flatnonzero(labels == number)
    gone = np.random.default_rng(seed).permutation(of_class)[rows:]
    np.savez_compressed(path, image=np.delete(images, gone, axis=0), label=np.delete(labels, gone))
    return round((len(labels) - len(of_class)) / (len(np.unique(labels)) - 1)) - rows


def classified(place: Path, arm: str, name: str, lacking: int, seed: int) -> dict[str, Any]:
    """Return the test scores of the classifier of one arm."""
    files, task = [str(place / "cut.npz")], dict(CLASSIFIER["task"])
    if arm == "class weights":
        task["class_weights"] = "auto"
    elif arm == "repeated":
        files.append(repeated(place, int(name), lacking))
    elif arm in GENERATORS:
        run = learned(place, arm, GENERATORS[arm], files, seed, {})
        files.append(str(place / f"{arm}.npz"))
        quietly(lambda: sample(run, count=lacking, seed=seed, output=Path(files[-1]), class_=name))
    run = learned(place, f"{arm} classifier", {**CLASSIFIER, "task": task}, files, seed, {"resamples": 1000})
    scores: dict[str, Any] = json.loads((run / "scores.json").read_text())["test"]
    return scores


def repeated(place: Path, number: int, lacking: int) -> str:
    """Write the rows of the class again and again, and return the path."""
    held = np.load(place / "cut.npz")
    images = held["image"][held["label"] == number]
    path = place / "repeated.npz"
    np.savez_compressed(path, image=np.resize(images, (lacking, *images.shape[1:])), label=np.full(lacking, number))
    return str(path)


def learned(
    place: Path, name: str, recipe: dict[str, Any], files: list[str], seed: int, evaluate: dict[str, Any]
) -> Path:
    """Train a recipe on files and return its run."""
    options = {
        "output_dir": str(place / name), "seed": seed, "per_device_train_batch_size": 64, "save_strategy": "no",
        "per_device_eval_batch_size": 360, "report_to": "none", **recipe["train"],
    }  # fmt: skip
    data = {"train": files, "test": str(DATA / "test.npz"), "duplicates": "off"}
    made = Recipe.from_dict({**recipe, "data": data, "train": options, "evaluate": QUICK | evaluate})
    return quietly(lambda: train(made))


def quietly(call: Any) -> Any:
    """Return what a call returns; what it prints is left out."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return call()


def shown(scores: dict[str, Any], name: str) -> str:
    """Return a score with its interval."""
    score = scores[name]
    return f"{name} {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
