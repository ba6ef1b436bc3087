"""What a run costs where it is used: bytes on disk, weights, time for an answer, memory; in a fresh process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import CheckFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from finetune.recipe import Recipe

WARM_UP = 3  # calls before the clock counts
SECONDS = 3.0  # of calls of each kind, and at least CALLS of them
CALLS = 10


def measure(run: Path) -> dict[str, Any]:
    """Return what a run costs on this machine; for a process that does nothing else.

    The rows are those that the run keeps to be checked on (32, unless its recipe says otherwise): one by one, each of
    its own length, and all of them as one padded batch.

    Returns:
        bytes: of its weights on disk, with those of an adapter's base.
        weights, nonzero: how many there are, and how many of these are not zero (None for weights in fewer bits).
        memory: bytes by which the process grew at most, from before the model was loaded to the last answer.
        single, batch: {times: seconds of each call, rows, tokens: of the longest row}.
        threads: that torch computed with; device.
    """
    import torch

    from finetune.models.quantized import is_quantized, weight_count
    from finetune.recipe import Recipe
    from finetune.reloading import load_run

    Recipe.read(run / artefact.RECIPE)  # imports most of what the libraries take
    rows = list(_rows(run))
    before = _resident()
    recipe, model, _ = load_run(run)
    device = recipe.train.device
    model.to(device)  # type: ignore[arg-type]  # the stub of a decorated method
    together = _together(rows)

    def times(batches: list[dict[str, Tensor]]) -> dict[str, Any]:
        placed = [{name: each.to(device) for name, each in batch.items()} for batch in batches]
        found: list[float] = []
        for number in range(WARM_UP):
            recipe.task.logits(model, placed[number % len(placed)])
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS or len(found) < max(CALLS, len(placed)):
            start = time.perf_counter()
            recipe.task.logits(model, placed[len(found) % len(placed)]).cpu()
            found.append(time.perf_counter() - start)
        return {
            "times": found,
            "rows": len(batches[0]["input_ids"]),
            "tokens": max(b["input_ids"].shape[1] for b in batches),
        }

    with torch.inference_mode():
        timed = {"single": times(rows), "batch": times([together])}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    rounded = any(map(is_quantized, model.modules()))
    return {
        "bytes": _bytes(run, recipe, model),
        "weights": weight_count(model),
        "nonzero": None if rounded else sum(int(each.count_nonzero()) for each in model.parameters()),
        "memory": max(peak - before, 0),
        **timed,
        "threads": torch.get_num_threads(),
        "device": str(device),
    }


def as_json(measured: dict[str, Any]) -> str:
    """Return what was measured for the process that asked."""
    return json.dumps(measured)


def measured_apart(run: Path) -> dict[str, Any]:
    """Return what `measure` finds in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "finetune", "measure", str(run)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("finetune: ")
        raise CheckFailed(f"{run} cannot be measured: {reason}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _rows(run: Path) -> Iterator[dict[str, Tensor]]:
    """Yield each kept row as a batch of its own, without padding."""
    for batch, _ in artefact.reference_batches(run):
        for place in range(len(batch["input_ids"])):
            row = {name: each[place : place + 1] for name, each in batch.items()}
            length = int(row["attention_mask"].sum()) if "attention_mask" in row else row["input_ids"].shape[1]
            yield {name: each[:, :length] if _of_tokens(each, row) else each for name, each in row.items()}


def _together(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return all rows as one batch, padded on the right."""
    import torch
    from torch.nn import functional as F

    longest = max(row["input_ids"].shape[1] for row in rows)

    def padded(name: str, row: dict[str, Tensor]) -> Tensor:
        if not _of_tokens(row[name], row):
            return row[name]
        nothing = -100 if name == "labels" else 0  # -100: no target
        return F.pad(row[name], (0, longest - row[name].shape[1]), value=nothing)

    return {name: torch.cat([padded(name, row) for row in rows]) for name in rows[0]}


def _of_tokens(each: Tensor, row: dict[str, Tensor]) -> bool:
    """Say whether a tensor holds something for every token; rows of 0/1 floats are several labels."""
    return each.shape == row["input_ids"].shape and not each.is_floating_point()


def _resident() -> int:
    """Return the bytes of memory that this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # not Linux: what it held at most until now
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()


def _bytes(run: Path, recipe: Recipe, model: Any) -> int:
    from finetune.loading import source_folder

    own = sum(file.stat().st_size for file in run.glob("*model*.safetensors"))
    if not (run / "adapter_config.json").exists():
        return own
    base = Path(source_folder(str(recipe.model.path)))
    files = list(base.glob("model*.safetensors")) if base.is_dir() else []
    if files:
        return own + sum(file.stat().st_size for file in files)
    return sum(each.nbytes for each in model.parameters())  # of a base that lies in the Hub's cache: in fp32
