"""The plot of a comparison: score against size, latency and memory, and the runs that nothing else beats on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PANELS = (  # title, and the cost of a run
    ("MB of weights on disk", lambda row: row["bytes"] / 1e6),
    ("ms for one row (median, line to p95)", lambda row: row["single_ms"]["median"]),
    ("MB of memory", lambda row: row["memory"] / 1e6),
)
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7d91", "#57606a")


def front(costs: list[float], scores: list[float], less_is_better: bool = False) -> list[int]:
    """Return the places of the points that no other beats on cost and score both, cheapest first."""
    worth = [-score if less_is_better else score for score in scores]
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -worth[place]))
    kept: list[int] = []
    for place in order:
        if not kept or worth[place] > worth[kept[-1]]:
            kept.append(place)
    return kept


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw a comparison as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = result["runs"]
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (title, cost) in zip(panels, PANELS, strict=True):
        costs, scores = [cost(row) for row in rows], [row["score"]["value"] for row in rows]
        best = front(costs, scores, result["less_is_better"])
        axes.plot([costs[place] for place in best], [scores[place] for place in best], color="#8c959f", lw=1, zorder=1)
        for place, row in enumerate(rows):
            _point(axes, costs[place], row, COLOURS[place % len(COLOURS)], title.startswith("ms"))
        axes.set(xlabel=title)
        axes.set_xlim(left=0)
        axes.grid(color="#d8dee4", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if result["less_is_better"]:
            axes.invert_yaxis()
    panels[0].set_ylabel(f"{result['score']}, {result['split']} (95 % interval)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(rows), 4), frameon=False
    )
    figure.savefig(path, dpi=120)


def _point(axes: Any, cost: float, row: dict[str, Any], colour: str, timed: bool) -> None:
    score = row["score"]
    axes.plot([cost], [score["value"]], "o", color=colour, label=row["run"], zorder=3)
    if score["low"] is not None:
        axes.plot([cost, cost], [score["low"], score["high"]], color=colour, lw=1, alpha=0.6, zorder=2)
    if timed:
        axes.plot([cost, row["single_ms"]["p95"]], [score["value"]] * 2, color=colour, lw=1, alpha=0.6, zorder=2)
