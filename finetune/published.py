"""What was published, loaded elsewhere: an empty cache, a fresh process, the run's own rows."""

from __future__ import annotations

import math
import subprocess
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import CheckFailed, EnvironmentFailed, UserError
from finetune.exporting import companion
from finetune.reloading import load_run
from finetune.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.recipe import Recipe
    from finetune.task import Scores

CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "HF_HUB_OFFLINE")
OFFLINE = ("TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
PATIENCE = 600.0  # seconds that a check may take besides
CLOSE = 1e-6  # of a score, relative: what the machine's own sums may differ by
BYTES_A_SECOND = 100_000  # the slowest connection that a download is waited for


def check_published(run: Path, repository: str, commit: str, size: int) -> dict[str, Any]:
    """Download a commit into an empty cache, load it in a fresh process, and hold it against the run.

    Returns:
        same: whether logits and scores are those of the run; said: in words; max_difference and rows, of the logits;
        graphs: the same of ONNX graphs, where there are any (finetune.exporting.companion);
        split and scores, {name: [the run's, the published one's]}, empty where the rows are not here any more.

    Raises:
        CheckFailed: it does not load.
        EnvironmentFailed: it could not be tried: network, disk, time.
    """
    from huggingface_hub import get_token

    spent = artefact.read_json(run / artefact.ENVIRONMENT)["wall_time_s"]
    with TemporaryDirectory(prefix="finetune-") as folder:
        verdict = Path(folder) / "verdict.json"
        elsewhere: dict[str, str | None] = dict.fromkeys((*CACHES, *OFFLINE))
        elsewhere |= {"HF_HOME": str(Path(folder) / "cache"), "HF_TOKEN": get_token()}
        words = ("verify_published", str(run.resolve()), repository, commit, str(verdict))
        later = f"; `finetune publish {run}` checks it again"
        try:
            code, reason = artefact.in_fresh_process(
                *words, environment=elsewhere, seconds=PATIENCE + size / BYTES_A_SECOND + 2 * spent
            )
        except subprocess.TimeoutExpired as error:
            raise EnvironmentFailed(
                f"{repository}: commit {commit[:12]} is published, and loading it elsewhere took more than "
                f"{error.timeout:.0f} s{later}."
            ) from None
        if code == EnvironmentFailed.exit_code:
            raise EnvironmentFailed(
                f"{repository}: commit {commit[:12]} is published, and could not be checked: {reason}{later}."
            )
        if code:
            raise CheckFailed(f"{repository}: commit {commit[:12]} is published, and does not load elsewhere: {reason}")
        return dict(artefact.read_json(verdict))


def verify_published(run: Path, repository: Path, commit: Path, verdict: Path) -> None:
    """Load a commit of the Hub and write what came of holding it against a run; what `check_published` starts."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(str(repository), revision=str(commit)))
    found = compared(run, folder)
    if (folder / "onnx").is_dir():
        graphs = companion.held_against(run, folder / "onnx")
        found |= {
            "graphs": graphs,
            "same": found["same"] and graphs["same"],
            "said": f"{found['said']}; {graphs['said']}",
        }
    artefact.write_json(verdict, found)


def compared(run: Path, folder: Path) -> dict[str, Any]:
    """Return what came of holding what lies in `folder` against a run; see `check_published`."""
    return held_against(run, *load_run(folder))


def held_against(run: Path, recipe: Recipe, model: Any, processor: Any) -> dict[str, Any]:
    """Return what came of holding a model, in evaluation mode, against a run; see `check_published`."""
    import torch

    device = recipe.train.device
    model.to(device)
    with torch.no_grad():
        logits = artefact.compare(
            run,
            lambda batch: recipe.task.logits(model, {name: each.to(device) for name, each in batch.items()}),
            "fresh",
        )
    split, scores, note = _scores(run, recipe, model, processor)
    close = all(math.isclose(ours, theirs, rel_tol=CLOSE, abs_tol=CLOSE) for ours, theirs in scores.values())
    said = f"logits of {logits.rows} rows differ by up to {logits.max_difference:.3g}"
    moved = [f"{name} {theirs:.6g} instead of {ours:.6g}" for name, (ours, theirs) in scores.items() if ours != theirs]
    said += f"; {split} scores: {', '.join(moved[:3]) or 'the same'}" if scores else f"; {note}"
    return {
        "same": logits.same and close,
        "said": said,
        "max_difference": logits.max_difference if math.isfinite(logits.max_difference) else None,
        "rows": logits.rows,
        "split": split,
        "scores": scores,
    }


def _scores(run: Path, published: Recipe, model: Any, processor: Any) -> tuple[str, dict[str, list[float]], str]:
    """Return the held-out split, its scores by the run and by what was published, and why there are none."""
    from finetune.data import load_splits
    from finetune.recipe import Recipe

    own, known = Recipe.read(run / artefact.RECIPE), artefact.read_json(run / artefact.SCORES)
    split = next((name for name in ("test", "validation") if name in known), "")
    if not split:
        return "", {}, "the run has no scores to compare"
    examines = type(own.task).examine is not Task.examine and not own.data.streaming
    wanted = ("train", "validation", "test") if examines else (split,)
    try:
        splits = load_splits(own.data, own.task.columns(), wanted)
    except UserError as error:
        return split, {}, f"scores were not compared, for the rows are not here: {error}"
    before = artefact.read_json(run / artefact.DATA)["fingerprints"]
    if any(before.get(file, facts) != facts for file, facts in splits.fingerprints.items()):
        return split, {}, "scores were not compared, for the rows have changed since"
    inputs = {
        name: (own.task.encode if name == "train" else own.task.encode_held)(rows, processor, own.data.on_long).inputs
        for name, rows in splits.rows.items()
    }
    found = _scored(own, published, model, processor, inputs, split)
    pairs = {name: [known[split][name]["value"], each.value] for name, each in found.items() if name in known[split]}
    return split, pairs, ""


def _scored(
    own: Recipe, published: Recipe, model: Any, processor: Any, inputs: dict[str, Dataset], split: str
) -> Scores:
    """Return the scores of the model on a split as a training ends with them: of its answers, and of examining it."""
    from finetune.recording import examined
    from finetune.rescoring import full_answers, trainer_for

    with TemporaryDirectory() as folder:
        trainer = trainer_for(published, model, processor, Path(folder))
        answers = full_answers(trainer, inputs[split], processor, own.evaluate.generated)
    found = own.task.score(answers, inputs[split], 0)
    asked = replace(own, evaluate=replace(own.evaluate, resamples=0))  # an interval is not held against another
    return found | examined(asked, model, processor, inputs).scores.get(split, {})
