"""The page of an audit: its verdict, its picture, its numbers; one file, no network."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

from finetune.auditing.exposure import CHANCE, MOST

PICTURE, PAGE = "audit.png", "audit.html"
BLUE, ORANGE, GREY = "#2f5fd0", "#c8701a", "#8a8f99"


def write_page(folder: Path, found: dict[str, Any]) -> None:
    """Write audit.png and audit.html into a folder."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    draw(folder / PICTURE, found)
    pages = Environment(
        loader=PackageLoader("finetune.auditing", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    picture = base64.b64encode((folder / PICTURE).read_bytes()).decode()
    held = {"canaries": {}, **found, "picture": picture, "chance": CHANCE, "most": MOST}
    (folder / PAGE).write_text(pages.get_template("audit.html.jinja").render(**held), encoding="utf-8")


def draw(path: Path, found: dict[str, Any]) -> None:
    """Draw exposures by how often a secret was seen, and how rows are told by their loss, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canaries = found.get("canaries", {})
    figure, axes = pyplot.subplots(
        1, 3 if canaries else 2, figsize=(13.5 if canaries else 9, 4), squeeze=False, layout="constrained"
    )
    *first, losses, curve = axes[0]
    if canaries:
        _exposures(first[0], canaries)
    _losses(losses, found["losses"])
    _curve(curve, found["losses"], found["membership"]["loss"])
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _exposures(axis: Any, canaries: dict[str, Any]) -> None:
    spread = np.random.default_rng(0)
    for place, each in enumerate(canaries.values()):
        values = np.array(each["values"])
        axis.scatter(
            place + spread.uniform(-0.18, 0.18, len(values)), values, s=14, alpha=0.45, color=BLUE, linewidths=0
        )
        axis.errorbar(
            [place], [each["exposure"]], [[each["exposure"] - each["low"]], [each["high"] - each["exposure"]]],
            fmt="o", color="black", capsize=5, zorder=3,
        )  # fmt: skip
    axis.axhline(CHANCE, color=ORANGE, linestyle="--")
    axis.axhline(MOST, color=GREY, linestyle=":")
    axis.annotate("mean by chance", (len(canaries) - 0.5, CHANCE), color=ORANGE, ha="right", va="bottom", fontsize=9)
    axis.annotate("ranked first of 1,000", (-0.45, MOST), color=GREY, ha="left", va="bottom", fontsize=9)
    axis.set_xticks(range(len(canaries)), ["never" if times == "0" else f"{times} ×" for times in canaries])
    axis.set_xlim(-0.5, len(canaries) - 0.5)
    axis.set_ylim(-0.3, MOST + 0.9)
    axis.set_xlabel("the secret stands in the training rows")
    axis.set_ylabel("exposure, bits")
    axis.set_title("Are secrets memorised?", fontsize=11)


def _losses(axis: Any, losses: dict[str, list[float]]) -> None:
    together = np.concatenate([np.array(values) for values in losses.values()])
    low, high = np.quantile(together, [0.005, 0.99])
    edges = np.linspace(low, max(high, low + 1e-6), 40)
    for (name, values), colour in zip(losses.items(), (BLUE, ORANGE), strict=True):
        axis.hist(np.clip(values, edges[0], edges[-1]), edges, density=True, alpha=0.5, color=colour, label=name)
    axis.set_xlabel("loss of a row, nats a target")
    axis.set_ylabel("density")
    axis.legend(frameon=False)
    axis.set_title("Do trained rows have lower losses?", fontsize=11)


def _curve(axis: Any, losses: dict[str, list[float]], told: dict[str, Any]) -> None:
    members, others = (np.sort(values) for values in losses.values())
    at = np.unique(np.concatenate([members, others, [-np.inf, np.inf]]))
    share = [np.searchsorted(side, at, side="right") / len(side) for side in (others, members)]
    axis.plot(*share, color=BLUE, label=f"by the loss: AUC {told['auc']:.3f}")
    axis.plot([0, 1], [0, 1], color=ORANGE, linestyle="--", label="by chance: 0.5")
    axis.set_xlabel("held-out rows taken for trained ones")
    axis.set_ylabel("trained rows told")
    axis.legend(frameon=False, loc="lower right")
    axis.set_aspect("equal")
    axis.set_title("Can a row be told to be trained on?", fontsize=11)
