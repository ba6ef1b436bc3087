"""The ONNX graphs that go to the Hub beside a run, in `onnx/`: made or found here, held against the run there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from finetune import artefact
from finetune.agreement import answered, gap
from finetune.deriving import fingerprint
from finetune.errors import UserError
from finetune.exporting.exported import INT8, RECORD, TOLERANCE, export

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.exporting.onnx_running import Exported
    from finetune.exporting.original import Original

CLOSE = 1e-3  # of a score: a tie that 1e-4 of a logit turns over moves an accuracy on a thousand rows by this


def refuse_unfit(kind: str) -> None:
    """Raise UserError where a task has no graphs or the extra is not installed: before a training, not after it."""
    from finetune.exporting.onnx_graphs import check_installed
    from finetune.exporting.onnx_running import STAND_INS

    if kind not in STAND_INS:
        raise UserError(f"publish.onnx: {kind} has no export to ONNX; known: {', '.join(STAND_INS)}.")
    check_installed()


def graphs_of(run: Path, form: str, overrides: Mapping[str, Any] | None = None) -> Path:
    """Return the folder RUN-onnx with the graphs of a run, exported now unless they are there.

    Args:
        run: the folder of a finished run.
        form: "fp32", or "int8" for graphs in int8 beside those in fp32.
        overrides: of the recipe.

    Raises:
        UserError: what lies there was made of another run, or lacks the graphs in int8.
        CheckFailed: the graphs answer otherwise than the run.
    """
    folder = run.with_name(f"{run.name}-onnx")
    if not (folder / RECORD).exists():
        return export(run, "onnx", folder, int8=form == INT8, overrides=overrides)
    record = artefact.read_json(folder / RECORD)
    if record.get("format") != "onnx" or record.get("of") != fingerprint(run):
        raise UserError(f"publish.onnx: {folder} was exported from other weights than {run} has. Remove it.")
    if form == INT8 and not list(folder.glob(f"*.{INT8}.onnx")):
        raise UserError(f"publish.onnx: {folder} has no graphs in int8. Remove it, or publish fp32.")
    return folder


def read_graphs(original: Original, folder: Path) -> dict[str, Exported]:
    """Return what stands in for the model of a run: {"onnx": graphs in fp32, "int8": those in int8, if any}."""
    from finetune.exporting.onnx_running import STAND_INS

    small = {path.name.removesuffix(f".{INT8}.onnx"): path for path in sorted(folder.glob(f"*.{INT8}.onnx"))}
    whole = {path.stem: path for path in sorted(folder.glob("*.onnx")) if path not in small.values()}
    made = STAND_INS[original.kind]
    return {label: made(original, files) for label, files in (("onnx", whole), (INT8, small)) if files}


def held_against(run: Path, folder: Path) -> dict[str, Any]:
    """Return what came of holding the graphs in a folder against a run.

    Returns:
        same: whether those in fp32 give the run's logits, to 1e-4 of the largest, and its scores, to 1e-3; said: in
        words; each label: rows, largest, relative and same (share of answers) on the reference rows, and scores,
        {name: [the run's, the graphs']} where the rows are here. Of graphs in int8 this is said and not required.
    """
    from finetune.exporting.original import Original

    original = Original.read(run)
    kept = [logits for _, logits in artefact.reference_batches(run)]
    found: dict[str, Any] = {"same": True}
    said = []
    for label, model in read_graphs(original, folder).items():
        task, asked = original.recipe.task, cast("PreTrainedModel", model)
        apart = gap(task, zip(answered(run, task, asked), kept, strict=True))
        pairs = _scores(original, model)
        found[label] = {"rows": apart.rows, "largest": apart.largest, "relative": apart.relative, "same": apart.same}
        found[label]["scores"] = pairs
        said.append(f"{label}: {apart.described()}")
        if label != INT8:
            close = (math.isclose(ours, theirs, rel_tol=CLOSE, abs_tol=CLOSE) for ours, theirs in pairs.values())
            found["same"] = apart.relative <= TOLERANCE and all(close)
    return found | {"said": "; ".join(said)}


def _scores(original: Original, model: Any) -> dict[str, list[float]]:
    """Return the scores of the run and of a stand-in on the held-out rows; {} where they are not here, or draw."""
    from finetune.rescoring import rescored

    if original.recipe.task.generates_images():
        return {}
    known = artefact.read_json(original.run / artefact.SCORES)
    try:
        after = rescored(original.recipe, model, original.processor, original.run)
    except UserError:  # the rows have moved: `published` says so of the run itself
        return {}
    own = known.get(after.split, {})
    return {name: [own[name]["value"], each.value] for name, each in after.scores.items() if name in own}
