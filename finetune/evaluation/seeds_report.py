"""report.html of train.seeds: what the seeds move, with a picture and the way to each run."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from finetune import artefact
from finetune.evaluation import plots
from finetune.evaluation.wording import HEADLINES, LESS_IS_BETTER, named, number, page

PICTURES = 6  # scores that are drawn
MINOR = ("micro_", "weighted_")  # with those of single classes: in the table that folds


def write_report(folder: Path) -> Path:
    """Write report.html into a folder of several seeds' runs, from its seeds.json, and return the path."""
    path = folder / artefact.REPORT
    path.write_text(page("seeds.html.jinja", **contents(folder)), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, Any]:
    """Return everything that the page shows."""
    found = artefact.read_json(folder / artefact.SEEDS)
    split = "test" if "test" in found["scores"] else next(iter(found["scores"]), None)
    own: dict[str, Any] = found["scores"].get(split, {})
    names = [name for name in own if "/" not in name and not name.startswith(MINOR)]
    first = [*(name for name in HEADLINES if name in names), *names]
    recipe = _recipe(folder, found)
    return {
        "name": folder.resolve().name,
        "subtitle": _subtitle(recipe),
        "split": split,
        "interval": found["interval"],
        "lead": _lead(own, first[0], split) if first else "No row was scored.",
        "runs": [_run(folder, seed, run) for seed, run in found["runs"].items()],
        "failed": found["failed"],
        "pictures": [_picture(name, own, found["baselines"]) for name in dict.fromkeys(first)][:PICTURES],
        "scores": {name: own[name] for name in names},
        "others": {name: one for name, one in own.items() if name not in names},
        "rivals": found["baselines"],
        "splits": {name: table for name, table in found["scores"].items() if name != split},
        "less": LESS_IS_BETTER,
        "recipe": "" if recipe is None else yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
    }


def _recipe(folder: Path, found: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the recipes of all seeds share, of the first run that has one."""
    for run in found["runs"].values():
        file = folder / run / artefact.RECIPE
        if file.exists():
            recipe: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
            train = {
                name: value for name, value in recipe.get("train", {}).items() if name not in ("seed", "output_dir")
            }
            return {**recipe, "train": train}
    return None


def _subtitle(recipe: dict[str, Any] | None) -> list[str]:
    if recipe is None:
        return []
    model, adapter = recipe.get("model") or {}, recipe.get("adapter") or {}
    source = model.get("path") or ("from scratch" if model.get("config") else None)
    return [str(part) for part in (recipe["task"]["kind"], source, adapter.get("peft_type")) if part]


def _lead(own: dict[str, Any], name: str, split: str | None) -> str:
    """Say in a sentence what the first score is on average, and how far the seed moves it."""
    one = own[name]
    values = list(one["values"].values())
    spread = f"; from seed to seed {number(min(values))} to {number(max(values))}" if len(values) > 1 else ""
    within = "" if one["low"] is None else f" ({number(one['low'])} to {number(one['high'])})"
    seeds = "1 seed" if one["n"] == 1 else f"{one['n']} seeds"
    return f"Over {seeds}, {named(name)} on the {split} rows is {number(one['mean'])} on average{within}{spread}."


def _run(folder: Path, seed: str, run: str) -> dict[str, Any]:
    """Return a run's name, and where its report lies beside this one; links are relative, so the folder can move."""
    report = folder / run / artefact.REPORT
    return {"seed": seed, "name": run, "link": f"{quote(run)}/{artefact.REPORT}" if report.exists() else None}


def _picture(name: str, own: dict[str, Any], baselines: dict[str, Any]) -> dict[str, Any]:
    rivals = {named(rival): held[name]["mean"] for rival, held in baselines.items() if name in held}
    return {"name": name, "less": name in LESS_IS_BETTER, "svg": plots.of_seeds(own[name], rivals, named(name))}
