"""Train the quickstart with three seeds, one after the other, and print what the README says of it.

python benchmarks/quickstart.py [recipe] [--section.option value …]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEEDS = (13, 14, 15)


def main() -> int:
    """Print a row a seed and the medians; return 1 when a training failed."""
    recipe, *options = sys.argv[1:] or ["recipes/quickstart.yaml"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            run, started = Path(folder) / str(seed), time.monotonic()
            command = [sys.executable, "-m", "finetune", "train", recipe, *options]
            done = subprocess.run(
                [*command, f"--train.seed={seed}", f"--train.output_dir={run}"], stdout=subprocess.DEVNULL, check=False
            )
            if done.returncode:
                return 1
            scores = json.loads((run / "scores.json").read_text())
            rows.append((seed, time.monotonic() - started, scores["test"]["accuracy"], scores["baselines"]["tfidf"]))
            _print(*rows[-1])
    accuracy = statistics.median(row[2]["value"] for row in rows)
    seconds = statistics.median(row[1] for row in rows)
    print(f"median: accuracy {accuracy:.4f}, {seconds:.0f} s for the whole command")
    return 0


def _print(seed: int, seconds: float, accuracy: dict[str, float], rival: dict[str, dict[str, float]]) -> None:
    gap = rival["accuracy_gap"]
    print(
        f"seed {seed}: {seconds:.0f} s, {accuracy['value']:.4f} [{accuracy['low']:.4f}, {accuracy['high']:.4f}], "
        f"TF-IDF {rival['accuracy']['value']:.4f}, gap {gap['value']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
