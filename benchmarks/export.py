"""Time a classifier's run in torch, ONNX and int8 ONNX side by side, and print size, latency and score.

python benchmarks/export.py RUN [EXPORT]     EXPORT: what `finetune export RUN --to onnx --int8` wrote; else it is made
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCHES = (1, 32)
ROWS = 256  # of the test split
ROUNDS = 5  # each times every contender once, so that a busy machine is busy for all


def main() -> int:
    """Print a row a contender and batch size: milliseconds a row, median of the rounds, and the ratio to torch."""
    import torch

    from finetune.data import load_splits
    from finetune.exporting import export
    from finetune.exporting.onnx_running import Classifier
    from finetune.exporting.original import Original

    run = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[2]) if len(sys.argv) > 2 else export(run, "onnx", Path(scratch) / "onnx", int8=True)
        original = Original.read(run)
        task = original.recipe.task
        contenders: dict[str, Any] = {
            "torch": original.model,
            "onnx": Classifier(original, {"model": folder / "model.onnx"}),
            "int8": Classifier(original, {"model": folder / "model.int8.onnx"}),
        }
        rows = load_splits(original.recipe.data, task.columns(), ("test",)).rows["test"]
        inputs = task.encode(rows.select(range(min(ROWS, len(rows)))), original.processor, "truncate").inputs
        inputs = inputs.sort("length")
        print(f"{torch.get_num_threads()} threads, {len(inputs)} rows, {ROUNDS} rounds")
        for size in BATCHES:
            batches = _batches(task.collator(original.processor), inputs, size)
            seconds: dict[str, list[float]] = {name: [] for name in contenders}
            for _ in range(ROUNDS):
                for name, model in contenders.items():
                    seconds[name].append(_timed(task, model, batches))
            for name, each in seconds.items():
                ratios = [torch_ / own for torch_, own in zip(seconds["torch"], each, strict=True)]
                print(
                    f"batch {size:>2}  {name:<5}  {1e3 * statistics.median(each) / len(inputs):7.2f} ms a row  "
                    f"{statistics.median(ratios):5.2f}x as fast as torch ({min(ratios):.2f} to {max(ratios):.2f})"
                )
        _scores(folder)
    return 0


def _batches(collate: Any, inputs: Any, size: int) -> list[dict[str, Any]]:
    from finetune.training.batching import CARRIED

    parts = [
        [inputs[place] for place in range(start, min(start + size, len(inputs)))]
        for start in range(0, len(inputs), size)
    ]
    return [{name: each for name, each in collate(part).items() if name not in (*CARRIED, "labels")} for part in parts]


def _timed(task: Any, model: Any, batches: list[dict[str, Any]]) -> float:
    import torch

    with torch.no_grad():
        task.logits(model, batches[0])
        started = time.perf_counter()
        for batch in batches:
            task.logits(model, batch)
        return time.perf_counter() - started


def _scores(folder: Path) -> None:
    found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    record = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    for name, table in {"torch": found["baselines"]["original"], "onnx": found["test"], **found["baselines"]}.items():
        if name != "original":
            score = table["accuracy"]
            print(
                f"{name:<5}  accuracy {score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}], n = {score['n']}"
            )
    for name, each in record["test"].items():
        print(f"{name:<5}  {each['same']:.2%} of the answers as torch's, logits off by up to {each['largest']:.2g}")
    print({name: f"{size / 1e6:.1f} MB" for name, size in record["bytes"].items() if name.endswith(".onnx")})


if __name__ == "__main__":
    sys.exit(main())
