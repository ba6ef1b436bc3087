"""README.md of a run that generates images: the card that its folder shows on the Hub, made from its files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from finetune import artefact
from finetune.evaluation.wording import interval, named, number

CARD = "README.md"
GRID = "after.png"  # the samples of the trained model
WORDS = {
    "image-vae": "A variational autoencoder of {size}×{size} {colour} images, trained from scratch.",
    "image-gan": "A generative adversarial network of {size}×{size} {colour} images, trained from scratch: this is the "
    "generator.",
}


def write_card(run: Path) -> Path | None:
    """Write README.md into the folder of a run that generates images and return its path; None for any other run."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    recipe = yaml.safe_load((run / artefact.RECIPE).read_text(encoding="utf-8"))
    grid = run / artefact.SAMPLES / GRID
    if recipe["task"]["kind"] not in WORDS or not grid.exists():
        return None
    pages = Environment(  # Markdown, not HTML: nothing is escaped
        loader=PackageLoader("finetune.evaluation", "."), autoescape=False, undefined=StrictUndefined, trim_blocks=True
    )
    pages.filters |= {"number": number, "named": named, "interval": interval}
    path = run / CARD
    path.write_text(pages.get_template("card.md.jinja").render(**contents(run, recipe)), encoding="utf-8")
    return path


def contents(run: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return everything that the card shows."""
    scores = artefact.read_json(run / artefact.SCORES)
    rivals = scores.pop("baselines", {})
    split = next((each for each in ("test", "validation") if each in scores), next(iter(scores), ""))
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    facts = artefact.read_json(run / artefact.EXAMINATION) if (run / artefact.EXAMINATION).exists() else {}
    shown = {name: score for name, score in scores.get(split, {}).items() if "/" not in name}
    kind = recipe["task"]["kind"]
    colour = "grey" if config["num_channels"] == 1 else "colour"
    return {
        "name": run.resolve().name,
        "kind": kind,
        "family": config["model_type"],
        "sentence": WORDS[kind].format(size=config["image_size"], colour=colour),
        "grid": GRID,
        "caption": _caption(run / artefact.SAMPLES / GRID),
        "split": split,
        "extractor": facts.get("extractor"),
        "rivals": list(rivals),
        "rows": [
            {
                "name": name,
                "score": score,
                "beside": [rivals[rival].get(name, {}).get("value") for rival in rivals],
            }
            for name, score in shown.items()
        ],
        "variants": _variants(run),
        "made": _made(artefact.read_json(run / artefact.ENVIRONMENT), recipe),
        "recipe": _recipe(recipe),
    }


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


def _recipe(recipe: dict[str, Any]) -> str:
    """Return the recipe as YAML, without the folder that this run lies in here."""
    train = {name: value for name, value in recipe.get("train", {}).items() if name != "output_dir"}
    return yaml.safe_dump({**recipe, "train": train}, sort_keys=False, default_flow_style=None).rstrip()


def _made(environment: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    seed = recipe.get("train", {}).get("seed")
    lines = {
        "Steps": environment.get("steps"),
        "Training time": f"{environment['training_time_s']} s on {environment['device']}",
        "Parameters": f"{environment['parameters']:,}",
        "Seed": seed,
    }
    return [f"{name}: {value}" for name, value in lines.items() if value is not None]
