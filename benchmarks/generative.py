"""Train GANs of the bundled digits with three seeds each, and print what their images are worth.

python benchmarks/generative.py [folder for the runs] [--section.option value …]

Beside them stand real training images (the floor), uniform noise, and a control that has lost half of the digits: real
images of 0 to 4, and a GAN that was shown no others. Options go to the commands that train GANs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = (13, 14, 15)
GANS = {"r3gan": "digits-gan", "hinge, spectral norm": "digits-gan-hinge", "dcgan": "digits-dcgan"}
SHOWN = ("fcd", "coverage", "density", "c2st_features", "c2st_pixels", "swd")
KEPT = 5  # digits that the control is left with


def main() -> int:
    """Print a line a run and the medians; a command that fails ends it all."""
    given = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.pop(0) if given and not given[0].startswith("--") else scratch)
        folder.mkdir(parents=True, exist_ok=True)
        extractor = folder / "extractor"
        accuracy = train("digits-classifier", extractor, [])["test"]["accuracy"]["value"]
        options = [*given, f"--evaluate.extractor={extractor}"]
        print(f"the extractor's accuracy: {accuracy:.4f}\n{'':36}" + "".join(f"{name:>15}" for name in SHOWN))
        for name, recipe in GANS.items():
            compare(name, recipe, folder, options)
        half = folder / "half.npz"
        keep(half)
        scores = train("digits-gan", folder / "half", [*options, f"--data.train={half}"])
        line(f"real, digits 0 to {KEPT - 1} only", scores["baselines"]["real"])
        line(f"r3gan of digits 0 to {KEPT - 1}", scores["test"])
    return 0


def train(recipe: str, run: Path, options: list[str]) -> dict[str, Any]:
    """Train a recipe of this repository and return its scores."""
    command = [sys.executable, "-m", "finetune", "train", f"recipes/{recipe}.yaml", f"--train.output_dir={run}"]
    subprocess.run([*command, *options], stdout=subprocess.DEVNULL, check=True)
    scores: dict[str, Any] = json.loads((run / "scores.json").read_text())
    return scores


def compare(name: str, recipe: str, folder: Path, options: list[str]) -> None:
    """Print a GAN's scores with each seed and their medians; with the first GAN the floor and noise beside them."""
    rows, baselines = [], {}
    for seed in SEEDS:
        started = time.monotonic()
        scores = train(recipe, folder / f"{recipe}-{seed}", [*options, f"--train.seed={seed}"])
        rows.append({score: scores["test"][score]["value"] for score in SHOWN})
        baselines = scores["baselines"]
        line(f"{name}, seed {seed}", rows[-1], f"{time.monotonic() - started:7.0f} s")
    line(f"{name}, median", {score: statistics.median(row[score] for row in rows) for score in SHOWN})
    if recipe == next(iter(GANS.values())):
        line("real training images", baselines["real"])
        line("uniform noise", baselines["noise"])


def line(name: str, scores: dict[str, Any], more: str = "") -> None:
    """Print the scores of one set of images."""
    values = (each["value"] if isinstance(each, dict) else each for each in (scores[score] for score in SHOWN))
    print(f"{name:36}" + "".join(f"{value:15.3f}" for value in values) + more, flush=True)


def keep(path: Path) -> None:
    """Write the training images of the first digits to a file."""
    with np.load("recipes/data/digits/train.npz") as digits:
        kept = digits["label"] < KEPT
        np.savez(path, image=digits["image"][kept], label=digits["label"][kept])


if __name__ == "__main__":
    sys.exit(main())
