"""report.html: one file that shows what a run is worth, made from the files of the run folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from finetune import artefact
from finetune.evaluation import plots, seeds_report
from finetune.evaluation.findings import Predictions, confusions
from finetune.evaluation.pictures import grids, pictures, steps
from finetune.evaluation.wording import HEADLINES, LESS_IS_BETTER, lead, named, number, page, reading

VALIDATION_LOSSES = ("eval_loss", "eval_nelbo", "eval_nll", "eval_mse")  # the first of them that the trainer logged
TOGETHER = {  # quantities of one unit that are drawn in one plot: its label, and the name of each
    "judged": (
        "discriminator's accuracy",
        {
            "d_accuracy_real": "real",
            "d_accuracy_fake": "generated",
            "d_accuracy_pairs": "pairs",
            "eval_d_accuracy_held_out": "held-out",
        },
    ),
    "critic": ("critic: real minus generated", {"critic_gap": "training", "eval_critic_gap": "held-out"}),
    "bound": ("nats an input, validation", {"eval_kl": "KL", "eval_reconstruction": "reconstruction"}),
}
CONTROL = "noise"  # so far off that on one scale with it all else would be one dot
FEW = 3  # latent dimensions up to which their numbers stand in the table
LONG_TABLE = 25  # classes beyond which the per-class table folds


def write_report(run: Path, status: str | None = None) -> Path:
    """Write report.html into the run folder and return its path. Parts whose files are missing are left out.

    `status` is what it says of the run; the run's own where none is given.
    A folder of `train.seeds` has a page of its own, on what the seeds move.
    """
    if (run / artefact.SEEDS).exists():
        return seeds_report.write_report(run)
    path = run / artefact.REPORT
    told = contents(run) | ({} if status is None else {"status": status})
    path.write_text(page("report.html.jinja", **told), encoding="utf-8")
    return path


def contents(run: Path) -> dict[str, Any]:
    """Return everything that the page shows."""
    recipe = (run / artefact.RECIPE).read_text(encoding="utf-8")
    scores = _json(run / artefact.SCORES, {})
    baselines = scores.pop("baselines", {})
    shown = next((name for name in ("test", "validation") if name in scores), None)
    own = scores.get(shown, {})
    return {
        "name": run.resolve().name,
        "subtitle": _subtitle(yaml.safe_load(recipe)),
        "recipe": recipe,
        "split": shown,
        "lead": lead(own, shown, baselines),
        "headlines": [_headline(name, own[name], baselines) for name in HEADLINES if name in own][:2],
        "columns": {**scores, **baselines},
        "score_names": [name for name in own if "/" not in name],
        "gaps": _gaps(baselines),
        "classes": _classes(own, _json(run / artefact.LABELS, [])),
        "long_table": LONG_TABLE,
        "verdict": _json(run / artefact.VERDICT, None),
        "origin": _json(run / artefact.ORIGIN, None),
        "status": _json(run / artefact.STATUS, {}).get("status"),
        "data": _json(run / artefact.DATA, {}),
        "environment": _flat(_json(run / artefact.ENVIRONMENT, {})),
        "samples": _samples(run / artefact.SAMPLES),
        "grids": grids(run / artefact.SAMPLES),
        "pictures": pictures(run / artefact.SAMPLES),
        "steps": steps(run / artefact.SAMPLES),
        **_examination(_json(run / artefact.EXAMINATION, {})),
        **_training(_json(run / artefact.HISTORY, [])),
        **_answers(run),
    }


def _subtitle(recipe: dict[str, Any]) -> list[str]:
    """Return the task, the model and the adapter of a recipe, each in a word."""
    model, adapter = recipe.get("model") or {}, recipe.get("adapter") or {}
    source = model.get("path") or ("from scratch" if model.get("config") else None)
    return [str(part) for part in (recipe["task"]["kind"], source, adapter.get("peft_type")) if part]


def _json(path: Path, missing: Any) -> Any:
    return artefact.read_json(path) if path.exists() else missing


def _headline(name: str, own: dict[str, Any], baselines: dict[str, Any]) -> dict[str, Any]:
    """Return a score beside its rivals', each placed on one scale from 0 to 100."""
    rivals = {rival: held for rival, held in baselines.items() if name in held and rival != CONTROL}
    bars = [("this run", own)] + [(named(rival), held[name]) for rival, held in rivals.items()]
    ends = [end for _, score in bars for end in (score["low"], score["value"], score["high"]) if end is not None]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return {
        "name": name,
        "score": own,
        "less": name in LESS_IS_BETTER,
        "bars": [
            {
                "name": title,
                "score": score,
                "at": place(score["value"]),
                "from": None if score["low"] is None else place(score["low"]),
                "to": None if score["low"] is None else place(score["high"]),
            }
            for title, score in bars
        ],
    }


def _gaps(baselines: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for rival, held in baselines.items():
        for full, score in held.items():
            if full.endswith("_gap"):
                name = full.removesuffix("_gap")
                rows.append({"rival": rival, "name": name, "score": score, "reading": reading(name, score)})
    return rows


def _classes(scores: dict[str, Any], labels: list[str]) -> list[dict[str, Any]]:
    """Return each class, or kind of span, with its scores, weakest first; those without test rows last."""
    if "span_f1" in scores:
        labels = [name.partition("/")[2] for name in scores if name.startswith("recall/")]
    rows = [
        {"label": label, **{kind: scores.get(f"{kind}/{label}") for kind in ("precision", "recall", "f1")}}
        for label in labels
    ]
    if not any(row["recall"] for row in rows):  # classes that a generator is told, and nobody scores
        return []
    return sorted(rows, key=lambda row: row["f1"]["value"] if row["f1"] else 2.0)


def _training(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the curves of the trainer's log."""
    series = {
        key: [(record["step"], record[key]) for record in history if record.get(key) is not None]
        for key in sorted({key for record in history for key in record})
    }
    drawn = {}
    held_out = next((series[key] for key in VALIDATION_LOSSES if key in series), [])
    if series.get("d_loss"):
        drawn["loss"] = plots.curves({"generator": series.get("loss", []), "discriminator": series["d_loss"]}, "loss")
    elif series.get("loss") or held_out:
        drawn["loss"] = plots.loss_curves(series.get("loss", []), held_out)
    for title, (label, parts) in TOGETHER.items():
        if there := {name: series[key] for key, name in parts.items() if series.get(key)}:
            drawn[title] = plots.curves(there, label)
    shown = (name for name in (*HEADLINES[1:], "nelbo") if f"eval_{name}" not in VALIDATION_LOSSES)
    key = next((f"eval_{name}" for name in shown if len(series.get(f"eval_{name}", [])) > 1), None)
    if key:
        drawn["validation"] = plots.curve(series[key], f"validation {named(key.removeprefix('eval_'))}")
    if len({rate for _, rate in series.get("learning_rate", [])}) > 1:
        drawn["rate"] = plots.curve(series["learning_rate"], "learning rate")
    return {"curves": drawn}


def _answers(run: Path) -> dict[str, Any]:
    """Return what predictions.parquet tells, by kind of task."""
    found: dict[str, Any] = {
        "kind": None,
        "worst": [],
        "written": [],
        "figures": [],
        "confusion": None,
        "confusions": [],
    }
    if not (run / artefact.PREDICTIONS).exists():
        return found
    predictions = Predictions.read(run / artefact.PREDICTIONS)
    found["kind"] = predictions.kind
    if predictions.kind == "unknown":
        return found
    found["worst"] = predictions.worst()
    found["written"] = predictions.first() if predictions.kind == "written" else []
    if predictions.kind in ("single", "multi", "tags", "answers"):
        found["figures"] += _classifier_figures(predictions)
    if predictions.kind == "single":
        labels = artefact.read_json(run / artefact.LABELS)
        matrix = predictions.matrix(labels)
        found |= {"confusion": plots.confusion(matrix, labels), "confusions": confusions(matrix, labels)}
    found["figures"] += _number_figures(predictions)
    return found


def _classifier_figures(predictions: Predictions) -> list[dict[str, str]]:
    figures = []
    if predictions.kind == "single":
        bins, error = predictions.reliability()
        note = f"Dots on the line: as sure as it is right. Bars: share of the rows. Calibration error {error:.3f}."
        figures.append({"title": "Calibration", "note": note, "svg": plots.reliability(bins)})
    lengths = predictions.by_length()
    if lengths:
        note = "Fifths of the test rows, from short to long texts."
        figures.append({"title": "Length", "note": note, "svg": plots.by_length(lengths, "rows right")})
    return figures


def _number_figures(predictions: Predictions) -> list[dict[str, str]]:
    import numpy as np

    columns = predictions.columns
    if predictions.kind == "regression":
        svg = plots.scatter(np.array(columns["target"]), np.array(columns["prediction"]))
        return [{"title": "Predicted and true", "note": "The line is where they agree.", "svg": svg}]
    if predictions.kind in ("language", "written"):
        each = np.array(columns["nll"]) / np.maximum(columns["tokens"], 1)
        svg = plots.histogram(each, "nats per token")
        return [{"title": "Inputs by loss", "note": "How evenly the text is predicted.", "svg": svg}]
    return []


def _samples(folder: Path) -> dict[str, list[str]]:
    """Return the generations by the name of their file, "before" first."""
    files = sorted(folder.glob("*.txt"), key=lambda path: (path.stem != "before", path.stem)) if folder.exists() else []
    return {path.stem: path.read_text(encoding="utf-8").strip().split("\n\n---\n\n") for path in files}


def _examination(found: dict[str, Any]) -> dict[str, Any]:
    """Return the alarms, how intervals were made, what is drawn or a table of its own, and the other facts."""
    each = found.get("kl_per_dimension", [])
    drawn = len(each) > FEW
    left = {"alarms", "intervals", "reconstructions", "classes_seen", *(["kl_per_dimension"] if drawn else [])}
    facts = {name: value for name, value in found.items() if name not in left}
    return {
        "dimensions": plots.bars(sorted(each, reverse=True), "latent dimension", "KL, nats") if drawn else None,
        "again": found.get("reconstructions", []),
        "alarms": found.get("alarms", []),
        "intervals": found.get("intervals"),
        "shares": _shares(found.get("classes_seen") or {}),
        "facts": {name: _line(value) for name, value in facts.items() if value not in (None, [], {})},
    }


def _shares(seen: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Return each class that the extractor saw, with its share of generated and of held-out images."""
    ours, theirs = seen.get("generated", {}), seen.get("held_out", {})
    return [{"name": name, "generated": share, "held_out": theirs.get(name, 0.0)} for name, share in ours.items()]


def _line(value: Any) -> Any:
    """Return a plain value as it is, and a list or a table in one line."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_line(held)}" for name, held in value.items())
    if isinstance(value, list):
        return ", ".join(str(number(each) if isinstance(each, float) else each) for each in value)
    return value


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Return plain facts by name; the data's fingerprints stand elsewhere."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if name == "data":
            continue
        if isinstance(value, dict):
            flat |= {str(inner): held for inner, held in value.items()}
        elif value not in (None, []):
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat
