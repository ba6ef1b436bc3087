"""Small plots as inline SVG whose colours follow the page: light, dark or print."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib wants real colours; these stand for the page's variables and are replaced in the finished SVG.
INK, MUTED, GRID, MODEL, RIVAL, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", MODEL: "model", RIVAL: "rival", PAPER: "paper"}

STYLE: dict[Any, Any] = {  # typed by matplotlib as a union of 300 literals
    "svg.fonttype": "none",  # text stays text: it can be selected, and read aloud
    "text.parse_math": False,  # a label may hold dollar signs
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.constrained_layout.use": True,
}
LINE: dict[str, Any] = {"linewidth": 1.5, "markersize": 3.5}
CELLS_WITH_NUMBERS = 20  # classes up to which a confusion matrix can be read cell by cell


def _figure(width: float = 4.6, height: float = 2.9, grid: bool = True) -> tuple[Figure, Axes]:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({**STYLE, "axes.grid": grid}):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        return figure, figure.add_subplot()


def _svg(figure: Figure, label: str) -> str:
    """Return the figure as an <svg> element that scales with the page and says what it shows."""
    import matplotlib as mpl

    held = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": label}):
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = held.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"font: ([\d.]+)px 'DejaVu Sans'[^;\"]*", r"font: \1px system-ui, sans-serif", text)
    text = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="max-width:\2pt"', text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def loss_curves(train: Sequence[tuple[float, float]], validation: Sequence[tuple[float, float]]) -> str:
    """Return the loss (nats) by step; points are (step, loss)."""
    figure, axes = _figure(3.9, 2.7)
    if train:
        axes.plot(*zip(*train, strict=True), color=MODEL, label="train", **LINE)
    if validation:
        axes.plot(*zip(*validation, strict=True), _mark(validation), color=RIVAL, label="validation", **LINE)
    _steps(axes, "loss")
    axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure, "Loss by step on train and validation")


def curves(series: Mapping[str, Sequence[tuple[float, float]]], label: str) -> str:
    """Return up to four quantities of one unit by step; points are (step, value)."""
    figure, axes = _figure(3.9, 2.7)
    for (name, points), colour in zip(series.items(), (MODEL, RIVAL, INK, MUTED), strict=False):
        axes.plot(*zip(*points, strict=True), _mark(points), color=colour, label=name, **LINE)
    _steps(axes, label)
    axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure, _attribute(f"{label} by step: {', '.join(series)}"))


def curve(points: Sequence[tuple[float, float]], label: str) -> str:
    """Return one quantity by step; points are (step, value)."""
    figure, axes = _figure(3.9, 2.7)
    axes.plot(*zip(*points, strict=True), _mark(points), color=MODEL, **LINE)
    _steps(axes, label)
    return _svg(figure, _attribute(f"{label} by step"))


def _steps(axes: Axes, label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set(xlabel="step", ylabel=label)


def _mark(points: Sequence[tuple[float, float]]) -> str:
    return "o-" if len(points) < 25 else "-"


def confusion(matrix: np.ndarray, labels: Sequence[str]) -> str:
    """Return the confusion matrix; the shade is the share of the true class. Numbers only where they can be read."""
    from matplotlib.patches import Rectangle

    count = len(labels)
    small = count <= CELLS_WITH_NUMBERS
    side = min(8.0, 2.2 + 0.42 * count) if small else 10.5
    figure, axes = _figure(side, side, grid=False)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for row, column in np.argwhere(matrix > 0):
        share = float(shares[row, column])
        shade = 0.12 + 0.88 * share if small else 0.25 + 0.75 * share
        colour = MODEL if row == column else RIVAL
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=shade, linewidth=0))
        if small:
            ink = PAPER if shade > 0.6 else INK
            axes.text(column, row, f"{matrix[row, column]}", ha="center", va="center", color=ink, fontsize=9)
    names = [_short(label, 18 if small else 30) for label in labels]
    size = 9 if small else 6.5
    axes.set_xticks(range(count), names, rotation=90 if count > 4 else 0, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    axes.tick_params(length=0)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), xlabel="predicted", ylabel="true", aspect="equal")
    return _svg(figure, "Confusion matrix: true classes down, predicted classes across")


def reliability(bins: Sequence[dict[str, float]]) -> str:
    """Return accuracy by confidence; a bin is {"confidence", "accuracy", "share", "low", "high"}."""
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.bar(
        [each["confidence"] for each in bins],
        [each["share"] for each in bins],
        width=0.03,
        color=MUTED,
        alpha=0.35,
    )
    _with_intervals(axes, [each["confidence"] for each in bins], bins)
    least = min(each["confidence"] for each in bins)
    axes.set(xlim=(max(0.0, min(0.45, least - 0.05)), 1.02), ylim=(0, 1.03), xlabel="confidence", ylabel="accuracy")
    return _svg(figure, "Accuracy by confidence")


def by_length(bins: Sequence[dict[str, Any]], label: str) -> str:
    """Return a value by text length; a bin is {"name", "accuracy", "low", "high"}."""
    figure, axes = _figure()
    _with_intervals(axes, list(range(len(bins))), bins)
    axes.set_xticks(range(len(bins)), [each["name"] for each in bins])
    low, high = axes.get_ylim()
    axes.set(xlim=(-0.5, len(bins) - 0.5), ylim=(max(0.0, low), min(1.01, high)), xlabel="characters", ylabel=label)
    return _svg(figure, _attribute(f"{label} by text length"))


def _with_intervals(axes: Axes, places: list[float], bins: Sequence[dict[str, Any]]) -> None:
    values = np.array([each["accuracy"] for each in bins])
    spread = np.abs(np.array([[each["low"], each["high"]] for each in bins]).T - values)
    axes.errorbar(places, values, spread, color=MODEL, marker="o", markersize=5, linewidth=1.5, linestyle="none")


def scatter(targets: np.ndarray, predictions: np.ndarray) -> str:
    """Return predicted by true numbers, with the line where they are equal."""
    figure, axes = _figure(4.6, 4.0)
    ends = [min(targets.min(), predictions.min()), max(targets.max(), predictions.max())]
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(targets, predictions, ".", color=MODEL, alpha=0.4, markersize=5)
    axes.set(xlabel="true", ylabel="predicted")
    return _svg(figure, "Predicted by true numbers")


def histogram(values: np.ndarray, label: str) -> str:
    """Return how many test inputs have which value."""
    figure, axes = _figure()
    axes.hist(values, bins=min(40, max(5, len(values) // 5)), color=MODEL, alpha=0.8)
    axes.set(xlabel=label, ylabel="inputs")
    return _svg(figure, _attribute(f"Inputs by {label}"))


def of_seeds(score: dict[str, Any], rivals: Mapping[str, float], label: str) -> str:
    """Return a score of each seed as a dot, their mean with its interval, and the mean of each rival as a line."""
    figure, axes = _figure(3.9, 2.7)
    seeds, values = list(score["values"]), list(score["values"].values())
    place = len(seeds)
    axes.plot(range(place), values, "o", color=MODEL, alpha=0.6, markersize=5)
    ends = [] if score["low"] is None else [[score["mean"] - score["low"]], [score["high"] - score["mean"]]]
    axes.errorbar([place], [score["mean"]], ends or None, color=MODEL, marker="D", markersize=6, linewidth=1.5)
    for number, (name, value) in enumerate(rivals.items()):
        style = ("-", (0, (4, 3)), (0, (1, 2)))[number % 3]
        axes.axhline(value, color=RIVAL, linewidth=1.2, linestyle=style, label=_short(name, 26))
    axes.set_xticks(range(place + 1), [*(_short(seed, 6) for seed in seeds), "mean"])
    axes.set(xlim=(-0.5, place + 0.5), xlabel="seed", ylabel=_short(label, 34))
    if rivals:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    return _svg(figure, _attribute(f"{label} of each seed, and their mean"))


def bars(values: Sequence[float], each: str, label: str) -> str:
    """Return one bar a value, in the order given."""
    figure, axes = _figure(3.9, 2.7)
    axes.bar(range(1, len(values) + 1), values, color=MODEL, width=0.8)
    axes.set(xlabel=f"{each}, greatest first", ylabel=label)
    return _svg(figure, _attribute(f"{label} of each {each}"))


def _attribute(text: str) -> str:
    """Return the text without what an XML attribute must not hold."""
    return re.sub(r"[<>&\"]", " ", text)


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
