"""`finetune export`: a run in another program's format, held against the run itself before it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.agreement import Gap, answered, gap
from finetune.deriving import ORIGINAL, fingerprint, refuse_existing, staged
from finetune.errors import CheckFailed, UserError, did_you_mean
from finetune.exporting.original import Original

if TYPE_CHECKING:
    from finetune.rescoring import Rescored
    from finetune.task import Scores

FORMATS = {
    "onnx": "finetune.exporting.onnx_format:write",
    "torch": "finetune.exporting.torch_format:write",
    "safetensors": "finetune.exporting.plain_formats:write",
    "gguf-ready": "finetune.exporting.plain_formats:write_for_gguf",
    "adapter": "finetune.exporting.plain_formats:write_adapter",
}
RECORD = "export.json"
TOLERANCE = 1e-4  # of logits in fp32, relative to the largest
INT8 = "int8"


def export(
    run: Path,
    to: str | None = None,
    output: Path | None = None,
    int8: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run in another format and return the folder; nothing is kept that answers otherwise than the run.

    Args:
        run: an adapter is merged into its base first.
        to: one of FORMATS.
        output: the folder; RUN-FORMAT when left out.
        int8: of onnx: write the graphs in int8 too, with their score beside; run.py then takes those.
        overrides: of the recipe.

    Raises:
        UserError: the format is unknown, the model cannot be written in it, or something lies at `output`.
        CheckFailed: what was written answers otherwise than the run by more than 1e-4 in fp32.
    """
    if to not in FORMATS:
        hint = did_you_mean(to, FORMATS) if to else ""
        raise UserError(f"--to {'is ' + to if to else 'is missing'}; known: {', '.join(FORMATS)}.{hint}")
    if int8 and to != "onnx":
        raise UserError("--int8 is for --to onnx.")
    artefact.open_run(run)
    output = output or run.with_name(f"{run.name}-{to}")
    refuse_existing(output)
    module, name = FORMATS[to].split(":")
    write = getattr(import_module(module), name)
    with staged(output) as folder:
        if to == "adapter":
            write(run, folder)
            return output
        original = Original.read(run, overrides)
        stand_ins = write(original, folder, **({"int8": True} if int8 else {}))
        record = {"format": to, "of": fingerprint(run), "versions": _versions()}
        checked = {label: _beside_reference(original, model, label) for label, model in stand_ins.items()}
        record["reference"] = {label: asdict(each) for label, each in checked.items()}
        record |= _scored(original, stand_ins, folder)
        record["bytes"] = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        artefact.write_json(folder / RECORD, record)
    return output


def _versions() -> dict[str, str]:
    from finetune.environment import versions

    return versions()


def _beside_reference(original: Original, stand_in: Any, label: str) -> Gap:
    """Return how far an export lies from the run on its reference rows; CheckFailed where fp32 is off."""
    task, run = original.recipe.task, original.run
    kept = (logits for _, logits in artefact.reference_batches(run))
    found = gap(task, zip(answered(run, task, stand_in), kept, strict=True))
    print(f"{label}, beside the run: {found.described()}.", flush=True)
    if label != INT8 and not found.relative <= TOLERANCE:
        raise CheckFailed(f"{run}: the export ({label}) answers otherwise: {found.described()}. Nothing was written.")
    return found


def _scored(original: Original, stand_ins: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Answer the test rows by the run and by each export; return what is known of both, and write scores.json."""
    from finetune.rescoring import rescored

    if original.kind in ("image-vae", "image-gan"):
        return {}  # what is exported draws; the scores need the discriminator, or the likelihood
    recipe = original.recipe
    try:
        before = rescored(recipe, original.model, original.processor, original.run)
    except UserError as error:
        print(f"Not scored: {error}", flush=True)
        return {}
    after = {label: rescored(recipe, model, original.processor, original.run) for label, model in stand_ins.items()}
    tables: dict[str, Scores] = {label: each.scores for label, each in after.items()}
    first, *others = tables
    rivals = {ORIGINAL: before.scores, **{label: tables[label] for label in others}}
    artefact.write_scores(folder, {before.split: tables[first]}, rivals)
    return {before.split: {label: _apart(original, before, each, label) for label, each in after.items()}}


def _apart(original: Original, before: Rescored, after: Rescored, label: str) -> dict[str, Any]:
    """Return how far the answers of an export lie from those of the run, over all rows that are scored."""
    import torch

    if "logits" in before.answers:
        one, other = (torch.from_numpy(each.answers["logits"]).float() for each in (after, before))
        found = gap(original.recipe.task, [(one, other)])
        print(f"{label}, on the {before.split} rows: {found.described()}.", flush=True)
        return asdict(found)
    worst = float(abs(after.answers["nll"] - before.answers["nll"]).max())
    print(f"{label}, on the {before.split} rows: losses of inputs differ by up to {worst:.3g} nats.", flush=True)
    return {"rows": len(before.inputs[before.split]), "largest_nll": worst}


def text(folder: Path) -> str:
    """Return the scores of an export beside the run's, and what lies in its folder."""
    from finetune import showing

    lines = showing.tables(folder) if (folder / artefact.SCORES).exists() else []
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.suffix != ".json"}
    lines += [f"{size / 1e6:>9.1f} MB  {folder / name}" for name, size in sizes.items()]
    return "\n".join(lines)
