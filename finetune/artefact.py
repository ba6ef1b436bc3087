"""The run folder: what a run leaves, its names, its format version, and the check that it reloads as it was."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import CheckFailed, UserError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from finetune.task import Picture, Scores

FORMAT = 1  # raised when a reader of the last format would misread the folder

RECIPE = "recipe.yaml"
STATUS = "run.json"
SCORES = "scores.json"
PREDICTIONS = "predictions.parquet"
ENVIRONMENT = "environment.json"
HISTORY = "history.json"
DATA = "data.json"
LABELS = "labels.json"
REFERENCE = "reference.safetensors"
VERDICT = "reload.json"
REPORT = "report.html"
SAMPLES = "samples"
EXAMINATION = "examination.json"
ORIGIN = "origin.json"  # of a run that was made of another: by what verb, of which runs
NOVELTY = "novelty"
CHECKPOINTS = "checkpoints"
PUBLICATION = "publish.json"
AUDIT = "audit.json"  # in a folder beside the run: see `audit_beside`
SEEDS = "seeds.json"  # of a folder that holds a run for each of several seeds

REFERENCE_BATCH = 4  # rows: a language model's logits are (rows, tokens, vocabulary)
RTOL, ATOL = 1e-4, 1e-5
HALF_RTOL, HALF_ATOL = 2e-2, 5e-2  # where the reference itself was computed in bfloat16, of 8 bits
HALF = "half"  # its mark among the reference's tensors


@dataclass(frozen=True)
class Verdict:
    """What came of reloading a run and asking it again."""

    same: bool
    max_difference: float
    rows: int
    process: str  # "fresh" or "same"


def audit_beside(run: Path | str) -> Path:
    """Return the folder in which an audit of a run lies, unless it was told another one."""
    named = Path(run) if Path(run).name not in ("", "..") else Path(run).resolve()  # "." is in a folder of some name
    return Path(f"{named}-audit")


def weights_digest(run: Path) -> str:
    """Return a digest of the weights that lie in a run."""
    import hashlib

    digest = hashlib.sha256()
    for file in sorted(run.glob("*.safetensors")):
        if file.name != REFERENCE:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def staged(path: Path) -> Path:
    """Return where a file is written before it gets its name; a kill may leave it there."""
    return path.with_name(f".{path.name}.tmp")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    staged(path).write_text(text, encoding="utf-8")
    os.replace(staged(path), path)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON (no NaN), whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run; UserError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the run is not whole.") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); the run is damaged.") from None


def write_table(table: Dataset, path: Path) -> None:
    """Write a table as .parquet, .jsonl or .csv, by the file's ending; CSV has no lists: they become "a|b"."""
    import pyarrow.parquet

    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table.with_format("arrow")[:], path)  # datasets' own writer shows a bar for it
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table), encoding="utf-8")
    else:
        frame = table.to_pandas()
        for name in [name for name, values in table[:1].items() if isinstance(values[0], list)]:
            frame[name] = ["|".join(map(_cell, parts)) for parts in frame[name]]
        frame.to_csv(path, index=False)


def _cell(part: Any) -> str:
    return json.dumps(part, ensure_ascii=False) if isinstance(part, dict) else str(part)


def write_picture(picture: Picture, path: Path) -> None:
    """Write a picture as PNG, whole or not at all; its caption goes into the file's own text."""
    from PIL import Image, PngImagePlugin

    words = PngImagePlugin.PngInfo()
    words.add_itxt("Description", picture.caption)
    Image.fromarray(picture.pixels).save(staged(path), format="PNG", pnginfo=words)
    os.replace(staged(path), path)


def write_scores(run: Path, scores: dict[str, Scores], baselines: dict[str, Scores]) -> None:
    """Write scores.json: {split: {score: {value, low, high, n}}, "baselines": {name: {score: {…}}}}."""
    table: dict[str, Any] = {split: plain_scores(each) for split, each in scores.items()}
    table["baselines"] = {name: plain_scores(each) for name, each in baselines.items()}
    write_json(run / SCORES, table)


def plain_scores(scores: Scores) -> dict[str, Any]:
    """Return scores as scores.json has them."""
    return {name: asdict(score) for name, score in scores.items()}


def status(run: Path) -> str | None:
    """Return "finished" or "unfinished", or None when the folder holds no run."""
    if not (run / STATUS).exists():
        return None
    found = read_json(run / STATUS)
    if found.get("format") != FORMAT:
        raise UserError(f"{run}: this run has format {found.get('format')}, and this version reads format {FORMAT}.")
    return str(found["status"])


def write_status(run: Path, value: str, kind: str) -> None:
    """Mark a run "unfinished" or "finished"."""
    write_json(run / STATUS, {"format": FORMAT, "status": value, "task": kind})


def open_run(path: Path) -> Path:
    """Return the path of a finished run; UserError says what it is instead, or which run is near."""
    if not path.exists():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        raise UserError(f"{path} does not exist.{did_you_mean(path.name, (each.name for each in beside))}")
    found = status(path) if path.is_dir() else None
    if found is None:
        raise UserError(f"{path} is not a run: it has no {STATUS}. Give the output_dir of a training.")
    if found != "finished":
        raise UserError(f"{path} is unfinished. Start the same training again to resume and finish it.")
    return path


def reference(
    batches: list[dict[str, Tensor]], logits: Callable[[dict[str, Tensor]], Tensor], half: bool = False
) -> dict[str, Tensor]:
    """Return a few batches of inputs with the logits of the model as it was trained, under names of one flat table.

    `half` says that the model could answer in half precision only.
    """
    import torch

    kept: dict[str, Tensor] = {HALF: torch.ones(1)} if half else {}
    for number, batch in enumerate(batches):
        kept |= {f"{number}.{name}": tensor.cpu().contiguous() for name, tensor in batch.items()}
        kept[f"{number}.logits"] = logits(batch).detach().float().cpu().contiguous()
    return kept


def write_reference(run: Path, kept: dict[str, Tensor]) -> None:
    """Write what `reference` returned."""
    from safetensors.torch import save

    (run / REFERENCE).write_bytes(save(kept))  # save_file would make it 0600, whatever the umask


def reference_batches(run: Path) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield (batch, logits) as they were kept."""
    from safetensors.torch import load_file

    kept = load_file(run / REFERENCE)
    kept.pop(HALF, None)
    for number in range(len({name.split(".")[0] for name in kept})):
        batch = {name.split(".", 1)[1]: tensor for name, tensor in kept.items() if name.startswith(f"{number}.")}
        yield batch, batch.pop("logits")


def compare(run: Path, logits: Callable[[dict[str, Tensor]], Tensor], process: str) -> Verdict:
    """Ask a reloaded model the kept inputs again and say whether it answers as it did."""
    import torch
    from safetensors import safe_open

    same, largest, rows = True, 0.0, 0
    with safe_open(run / REFERENCE, framework="pt") as kept:
        relative, absolute = (HALF_RTOL, HALF_ATOL) if HALF in kept.keys() else (RTOL, ATOL)  # noqa: SIM118  # no dict
    for batch, expected in reference_batches(run):
        given = logits(batch).detach().float().cpu()
        rows += len(expected)
        same = same and given.shape == expected.shape and torch.allclose(given, expected, relative, absolute)
        largest = max(largest, float((given - expected).abs().max())) if given.shape == expected.shape else float("inf")
    return Verdict(same, largest, rows, process)


def verify(run: Path) -> Verdict:
    """Reload the run in a fresh process and compare it there; CheckFailed when it does not answer as it was trained.

    A fresh process shares nothing with the one that trained: no module state, no random head, no path set on the way.
    """
    code, reason = in_fresh_process("verify", str(run))
    if code:
        raise CheckFailed(f"{run} was saved but does not come back in a fresh process: {reason}")
    return Verdict(**read_json(run / VERDICT))


def in_fresh_process(
    *words: str, environment: Mapping[str, str | None] | None = None, seconds: float | None = None
) -> tuple[int, str]:
    """Run `finetune WORDS` in a process that shares nothing with this one; return its exit code and its last line.

    Args:
        words: the command.
        environment: variables that differ from ours; None takes one away.
        seconds: after which the process is ended, and subprocess.TimeoutExpired raised.
    """
    # The child is a process of its own, not one more rank of a launch that may be under way.
    launch = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_", "FSDP_")
    given = {name: value for name, value in os.environ.items() if not name.startswith(launch)} | dict(environment or {})
    alone = {name: value for name, value in given.items() if value is not None}
    done = subprocess.run(
        [sys.executable, "-m", "finetune", *words],
        capture_output=True,
        text=True,
        env=alone,
        check=False,
        timeout=seconds,
    )
    return done.returncode, (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("finetune: ")


def write_verdict(run: Path, verdict: Verdict) -> None:
    """Record the verdict in the run, a bad one too; then CheckFailed for a bad one.

    A difference that is no finite number, as of logits of other shapes, is written as null.
    """
    finite = verdict.max_difference if math.isfinite(verdict.max_difference) else None
    write_json(run / VERDICT, {**asdict(verdict), "max_difference": finite})
    if not verdict.same:
        raise CheckFailed(
            f"{run}: the reloaded run differs from the trained model by up to {verdict.max_difference:.3g} "
            f"in the logits of {verdict.rows} rows."
        )
