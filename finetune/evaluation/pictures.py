"""The pictures of a run for its report: each PNG of samples/ inside the page, with the words that stand in it."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np

GRIDS = {"after": "Samples of the trained model", "before": "Before training"}
TITLES = {"nearest": "Beside the nearest training images"}
FIRST = ("reconstructions", "latent_plane", "manifold", "traversals", "interpolation")  # the others by name
STEP = re.compile(r"step-(\d+)")
SHOWN_STEPS = 8  # evenly chosen: every picture is in the page's bytes
WIDTH = 480  # pixels of the page up to which a small picture is enlarged, by a whole number


def grids(folder: Path) -> list[dict[str, Any]]:
    """Return the samples of the trained model, and those from before."""
    return [
        _picture(folder / f"{name}.png", title) for name, title in GRIDS.items() if (folder / f"{name}.png").exists()
    ]


def pictures(folder: Path) -> list[dict[str, Any]]:
    """Return what examining the model drew, the most telling first."""
    found = [path for path in sorted(folder.glob("*.png")) if path.stem not in GRIDS and not STEP.fullmatch(path.stem)]
    found.sort(key=lambda path: FIRST.index(path.stem) if path.stem in FIRST else len(FIRST))
    return [_picture(path, TITLES.get(path.stem, re.sub("[-_]", " ", path.stem).capitalize())) for path in found]


def steps(folder: Path) -> list[dict[str, Any]]:
    """Return samples over training, at most 8 of them, the first and the last among these."""
    found = sorted((int(match[1]), path) for path in folder.glob("*.png") if (match := STEP.fullmatch(path.stem)))
    chosen = np.unique(np.linspace(0, len(found) - 1, min(SHOWN_STEPS, len(found))).round().astype(int))
    return [_picture(found[place][1], f"step {found[place][0]:,}", enlarged=WIDTH // 2) for place in chosen]


def _picture(path: Path, title: str, enlarged: int = WIDTH) -> dict[str, Any]:
    """Return the picture as a data URI, its words, and its width: a small one is enlarged by a whole number."""
    from PIL import Image

    with Image.open(path) as image:
        width, words = image.width, str(image.info.get("Description", ""))
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return {
        "title": title,
        "caption": words,
        "uri": f"data:image/png;base64,{data}",
        "width": width * max(1, enlarged // width),
        "sharp": width <= enlarged,
    }
