"""Usual rows and outliers on a detector's scale, and how well each detector tells them apart."""

from __future__ import annotations

import numpy as np

from finetune.evaluation.metrics.auroc import auroc
from finetune.evaluation.novelty import DETECTORS, Novelty
from finetune.task import Picture

BINS = 25


def picture(novelty: Novelty, usual: dict[str, np.ndarray], outliers: dict[str, np.ndarray], told: str) -> Picture:
    """Return histograms of novelty on one detector's scale beside the ROC curves of all.

    Args:
        novelty: says how new a score is among usual ones.
        usual, outliers: scores by detector.
        told: whose scale it is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 4.0), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    edges = np.linspace(0, 1, BINS + 1)
    for name, scores in (("usual rows", usual[told]), ("outliers", outliers[told])):
        shares = novelty.shares(told, scores)
        left.hist(shares, edges, weights=np.full(len(shares), 1 / len(shares)), alpha=0.6, label=name)
    left.set(xlabel=f"novelty by {told}: share of usual rows that are less new", ylabel="share of the rows")
    left.legend(frameon=False)
    areas = {name: float(_area(usual[name], outliers[name])) for name in DETECTORS}
    for name in sorted(areas, key=lambda each: -areas[each]):
        false, true = _curve(usual[name], outliers[name])
        right.plot(false, true, linewidth=2.2 if name == told else 1.1, label=f"{name} {areas[name]:.3f}")
    right.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle="--")
    right.set(xlabel="usual rows above the threshold", ylabel="outliers above the threshold", aspect="equal")
    right.legend(frameon=False, title="area under the curve", loc="lower right")
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    return Picture(pixels, "How new the classifier's usual rows and outliers are, and how well each score tells them.")


def _both(usual: np.ndarray, outliers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.r_[usual, outliers], np.r_[np.zeros(len(usual), dtype=int), np.ones(len(outliers), dtype=int)]


def _area(usual: np.ndarray, outliers: np.ndarray) -> np.ndarray:
    return auroc(*_both(usual, outliers))


def _curve(usual: np.ndarray, outliers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of usual rows and of outliers above each threshold, from none to all."""
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(_both(usual, outliers)[1], _both(usual, outliers)[0])
    return false, true
