"""What the card says of an audit: of the one that lies beside the run, if it measured what the run is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune.recipe import Recipe

TRAINED = ("task", "data", "model", "adapter", "train")  # the sections of a recipe that make weights
ASIDE = ("cache_dir", "output_dir", "report_to", "logging_dir", "run_name", "overwrite")  # change no weight
ANOTHER = ("load_best_model_at_end", "max_hours")  # an audit trains without, so that held-out rows choose nothing


def trained_as(recipe: Recipe, fingerprints: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a run: sections of its recipe, and the files of its rows with their fingerprints."""
    made = recipe.to_dict()
    sections: dict[str, Any] = {
        section: {name: value for name, value in (made.get(section) or {}).items() if name not in (*ASIDE, *ANOTHER)}
        for section in TRAINED
    }
    return {**sections, "files": {file: facts.get("sha256") for file, facts in fingerprints.items()}}


def audited(run: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Return the audit that lies beside a run; None without any, or where other rows or options were audited."""
    place = artefact.audit_beside(run) / artefact.AUDIT
    if not place.exists() or not (run / artefact.DATA).exists():
        return None
    found: dict[str, Any] = artefact.read_json(place)
    told = found["facts"]["trained_as"]
    own = trained_as(recipe, artefact.read_json(run / artefact.DATA)["fingerprints"])
    same = all(
        own[part].get(name) == value
        for part, values in told.items()
        for name, value in values.items()
        if value is not None  # what the task settled once it was trained was open then
    )
    return found if same else None
