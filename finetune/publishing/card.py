"""README.md: the card of a run, made from the files of its folder; parts whose files are missing are left out."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.evaluation.findings import Predictions
from finetune.evaluation.wording import interval, lead, named, number
from finetune.foreign.adapters import digest_of_base
from finetune.publishing.audited import audited
from finetune.publishing.bases import Base, named_base
from finetune.publishing.files import CARD, published_recipe
from finetune.publishing.metadata import front_matter
from finetune.publishing.options import PublishOptions
from finetune.publishing.scrubbing import without_paths
from finetune.publishing.snippets import graphs_snippet, snippet

if TYPE_CHECKING:
    from jinja2 import Environment

    from finetune.recipe import Recipe

MINOR = ("micro_", "weighted_")  # scores that stand in scores.json alone, with those of each class
MOST_LABELS = 100
EXAMPLES = 3
EMISSIONS = "emissions.csv"  # of CodeCarbon
SAMPLES = 3


@dataclass(frozen=True)
class Place:
    """Where what the card stands for lies: on the Hub, or in a folder of this machine."""

    name: str  # what from_pretrained is given
    revision: str | None = None  # a branch or tag other than main
    base: Base | None = None
    publish: PublishOptions = field(default_factory=PublishOptions)
    graphs: Path | None = None  # the export to ONNX that lies in onnx/ there


def write_card(run: Path, recipe: Recipe) -> Path:
    """Write README.md into a run and return its path: as it will be published, but that base and run lie here."""
    publish = recipe.publish or PublishOptions()
    base = named_base(recipe.model, publish)
    path = run / CARD
    path.write_text(render(run, recipe, Place(run.resolve().name, base=base, publish=publish)), encoding="utf-8")
    return path


def render(run: Path, recipe: Recipe, place: Place) -> str:
    """Return the card of a run, whatever of the run is there yet; its metadata are checked by the Hub's own client.

    Raises:
        ValueError: the metadata are malformed.
    """
    held = contents(run, recipe, place)
    metadata = front_matter(recipe, place.name.rpartition("/")[2], place.base, place.publish, held["family"], held)
    return f"---\n{metadata}---\n" + _pages().get_template("card.md.jinja").render(**held)


@cache
def _pages() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(  # Markdown, not HTML: nothing is escaped
        loader=PackageLoader("finetune.publishing", "."),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"number": number, "named": named, "interval": interval, "cell": _cell}
    return pages


def contents(run: Path, recipe: Recipe, place: Place) -> dict[str, Any]:
    """Return everything that the card shows."""
    scores = _json(run / artefact.SCORES, {})
    rivals = scores.pop("baselines", {})
    split = next((each for each in ("test", "validation") if each in scores), next(iter(scores), ""))
    own, usage = scores.get(split, {}), recipe.task.usage(_json(run / "config.json", {}).get("model_type"))
    config = _json(run / "config.json", {})
    environment = _json(run / artefact.ENVIRONMENT, {})
    grid = run / artefact.SAMPLES / "after.png"
    labels = list(getattr(recipe.task, "labels", None) or ())
    return {
        "name": place.name.rpartition("/")[2],
        "usage": usage,
        "family": config.get("model_type"),
        "base": place.base,
        "publish": place.publish,
        "adapter": _adapter(recipe),
        "base_digest": digest_of_base(run),
        "quantized": config.get("quantization_config") is not None,
        "grid": grid.relative_to(run).as_posix() if grid.exists() else None,
        "caption": _caption(grid) if grid.exists() else "",
        "snippet": snippet(recipe, place.name, place.revision, place.base, config),
        "graphs": _graphs(place),
        "variants": _variants(run),
        "labels": labels[:MOST_LABELS],
        "more_labels": max(0, len(labels) - MOST_LABELS),
        "split": split,
        "lead": lead(own, split, rivals),
        "extractor": bool({"extractor", "inception"} & set(_json(run / artefact.EXAMINATION, {}))),
        "rivals": list(rivals),
        "rows": _rows(own, rivals),
        **_found(run),
        "alarms": _json(run / artefact.EXAMINATION, {}).get("alarms", []),
        "audit": audited(run, recipe),
        "data": _data(run),
        "examples": _examples(run) if place.publish.share_examples else [],
        "samples": _samples(run, place.publish.share_examples),
        "made": _made(environment, recipe),
        "versions": environment.get("versions", {}),
        "origin": _origin(_json(run / artefact.ORIGIN, {})),
        "energy": _energy(run),
        "verdict": _json(run / artefact.VERDICT, None),
        "recipe": _recipe(recipe, place),
    }


def _json(path: Path, missing: Any) -> Any:
    return artefact.read_json(path) if path.exists() else missing


def _cell(text: object) -> str:
    """Return a text that a Markdown table's cell can hold."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def _adapter(recipe: Recipe) -> str | None:
    kind = getattr(recipe.adapter, "peft_type", None)
    return None if kind is None else str(getattr(kind, "value", kind))


def _rows(own: dict[str, Any], rivals: dict[str, Any]) -> list[dict[str, Any]]:
    shown = {name: score for name, score in own.items() if "/" not in name and not name.startswith(MINOR)}
    return [
        {"name": name, "score": score, "beside": [rivals[rival].get(name, {}).get("value") for rival in rivals]}
        for name, score in shown.items()
    ]


def _found(run: Path) -> dict[str, Any]:
    """Return what the predictions tell as a whole: whether it is as sure as it is right, and where length matters."""
    found: dict[str, Any] = {"calibration": None, "lengths": []}
    if not (run / artefact.PREDICTIONS).exists():
        return found
    predictions = Predictions.read(run / artefact.PREDICTIONS)
    if predictions.kind == "single":
        found["calibration"] = predictions.reliability()[1]
    if predictions.kind in ("single", "multi", "tags", "answers"):
        found["lengths"] = predictions.by_length()
    return found


def _caption(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        return " ".join(str(image.info.get("Description", "Samples of the trained model.")).split())


def _variants(run: Path) -> str:
    """Say what else of the model lies in the folder."""
    found = []
    if (run / "model.raw.safetensors").exists():
        found.append('The weights are their moving average; those of the last step load with `variant="raw"`.')
    if (run / "discriminator").is_dir():
        found.append('The discriminator loads with `subfolder="discriminator"`.')
    return " ".join(found)


def _graphs(place: Place) -> dict[str, Any]:
    """Return how the graphs beside the weights are used, and how near the model they answer; {} without any."""
    if place.graphs is None:
        return {}
    record = artefact.read_json(place.graphs / "export.json")
    split = next((each for each in ("test", "validation") if each in record), "reference")
    return {
        "snippet": graphs_snippet(place.name, place.revision),
        "split": split,
        "apart": record[split],
        "bytes": {name: size for name, size in record["bytes"].items() if name.endswith(".onnx")},
    }


def _data(run: Path) -> dict[str, Any]:
    """Return the files with their fingerprints, and what was done to the rows, without paths."""
    found = _json(run / artefact.DATA, {})
    files = [
        {
            "name": name,
            "rows": facts.get("rows"),
            "sha256": str(facts.get("sha256") or facts.get("revision") or "")[:16],
        }
        for name, facts in without_paths(found.get("fingerprints", {})).items()
        if isinstance(facts, dict)
    ]
    steps = [
        f"{step['split']}: {step['step']}, {step['before']:,} → {step['after']:,} rows"
        for step in found.get("ledger", [])
        if step["before"] != step["after"]
    ]
    return {"files": files, "steps": without_paths(steps)}


def _examples(run: Path) -> list[dict[str, str]]:
    """Return a few test rows with what the model says, by consent."""
    import pyarrow.parquet

    file = run / artefact.PREDICTIONS
    if not file.exists():
        return []
    rows = pyarrow.parquet.read_table(file).slice(0, EXAMPLES).to_pylist()
    wanted = ("text", "pair", "prediction", "target")
    return [{name: str(row[name])[:300] for name in wanted if row.get(name) is not None} for row in rows]


def _samples(run: Path, share_examples: bool) -> list[str]:
    """Return texts of the trained model; what lies between two texts of the data shows these too."""
    file = run / artefact.SAMPLES / "after.txt"
    texts = file.read_text(encoding="utf-8").strip().split("\n\n---\n\n") if file.exists() else []
    return [text[:1000] for text in texts if share_examples or not text.startswith("between")][:SAMPLES]


def _origin(found: dict[str, Any]) -> str:
    """Say which command made a run of others, and how far the answers moved; "" for a trained one."""
    if not found:
        return ""
    runs = ", ".join(f"`{each['run']}`" for each in found.get("of", []))
    moved = found.get("gap", {}).get("relative")
    spread = "" if moved is None else f"; logits moved by at most {moved:.1e} of the largest"
    return f"Made of {runs} by `finetune {found['made_by']}`{spread}. What follows is how that was trained."


def _energy(run: Path) -> dict[str, float] | None:
    """Return what CodeCarbon estimated (train.report_to codecarbon): kWh, and kg of CO2 that their making costs."""
    if not (run / EMISSIONS).exists():
        return None
    with (run / EMISSIONS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))  # one for each time that the training was begun or resumed
    return {
        "kwh": sum(float(row["energy_consumed"]) for row in rows),
        "kg": sum(float(row["emissions"]) for row in rows),
    }


def _made(environment: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    if not environment:
        return {}
    gpus = ", ".join(environment.get("gpus", []))
    seconds = environment["training_time_s"]
    lines = {
        "Steps": environment.get("steps"),
        "Tokens seen": environment.get("tokens_seen") or None,
        "Training time": f"{seconds:,} s" if seconds < 600 else f"{seconds / 3600:.1f} h",
        "Hardware": f"{gpus or environment['processor']}, {environment['world_size']} process(es)",
        "Precision": environment["precision"],
        "Parameters": f"{environment['parameters']:,}, {environment['trainable_parameters']:,} of them trained",
        "Seed": recipe.train.seed,
        "Differential privacy": _private(environment.get("privacy")),
    }
    return {
        name: f"{value:,}" if isinstance(value, int) else value for name, value in lines.items() if value is not None
    }


def _private(facts: dict[str, Any] | None) -> str | None:
    """Say what private training promises of the weights; None for any other."""
    from finetune.training.private_options import told

    return None if facts is None else f"{told(facts)}; of the training rows, in the weights alone"


def _recipe(recipe: Recipe, place: Place) -> str:
    from finetune.recipe_reading import to_yaml

    made = published_recipe(recipe.to_dict(), place.base, place.publish.share_examples)
    made["train"] = {name: value for name, value in made["train"].items() if name != "output_dir"}
    return to_yaml(json.loads(json.dumps(made))).rstrip()
