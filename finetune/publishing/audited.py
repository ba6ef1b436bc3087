"""What the card says of an audit: of the one that lies beside the run, if it measured what the run is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune.recipe import Recipe

TRAINED = ("task", "data", "model", "adapter", "train")  # the sections of a recipe that make weights
ASIDE = ("cache_dir", "output_dir", "report_to", "logging_dir", "run_name", "overwrite")  # change no weight
ANOTHER = ("load_best_model_at_end",)  # an audit trains without, so that held-out rows choose nothing

INTERVAL = {"low": float, "high": float}
SHAPE: dict[str, Any] = {  # what is read of an audit
    "verdict": [str],
    "facts": {"rows": int, "held_out": str, "trained_as": {**dict.fromkeys(TRAINED, str), "files": [str]}},
    "membership": {str: {"auc": float, **INTERVAL}},
}
OF_SECRETS: dict[str, Any] = {
    "facts": {"planted": int, "chance": float, "most": float},
    "canaries": {str: {"exposure": float, "n": int, **INTERVAL}},
}


def trained_as(recipe: Recipe, fingerprints: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a run, as digests: of each section of its recipe, and of each file of its rows.

    A recipe holds paths and texts, which an audit does not tell. What is left out is at its default on both sides.
    """
    made, aside = recipe.to_dict(), {*ASIDE, *ANOTHER, *recipe.task.settles}
    held: dict[str, Any] = {
        section: _digest({name: value for name, value in (made.get(section) or {}).items() if name not in aside})
        for section in TRAINED
    }
    files = sorted(_digest(facts.get("sha256", facts)) for facts in fingerprints.values())
    return {**held, "files": files}


def audited(run: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Return the audit that lies beside a run; None where none is readable, or where it is of something else.

    An audit of a run is of its weights; one of a recipe, of its options, its rows and the weights that it starts from.
    """
    place, held = artefact.audit_beside(run) / artefact.AUDIT, (run / artefact.DATA, run / artefact.ENVIRONMENT)
    if not place.is_file() or not all(each.exists() for each in held):
        return None
    try:
        found: dict[str, Any] = artefact.read_json(place)
    except (UserError, OSError, RecursionError):  # whose it is, and what became of it, is not known
        return None
    if not _fits(found, SHAPE) or ("canaries" in found and not _fits(found, OF_SECRETS)):
        return None
    data, environment = map(artefact.read_json, held)
    told, own = dict(found["facts"]["trained_as"]), trained_as(recipe, data["fingerprints"])
    files = set(told.pop("files"))  # an audit of a run reads no split but two
    if told != {section: own[section] for section in told} or not files <= set(own["files"]):
        return None
    if "weights" in found["facts"]:
        return found if found["facts"]["weights"] == artefact.weights_digest(run) else None
    return found if found["facts"].get("base") == environment.get("base_weights") else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _fits(value: Any, shape: Any) -> bool:
    """Say whether a value of JSON has what a shape names: {name: shape}, {str: shape of all}, [shape of all], type."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return False
        wanted = dict.fromkeys(value, shape[str]) if str in shape else shape
        return all(name in value and _fits(value[name], each) for name, each in wanted.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(each, shape[0]) for each in value)
    return isinstance(value, (int, float) if shape is float else shape) and not isinstance(value, bool)
