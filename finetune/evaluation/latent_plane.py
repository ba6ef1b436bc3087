"""A latent space of two dimensions as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.task import Picture

LEGEND = 20  # classes up to which each is named beside the picture


def scatter(means: np.ndarray, classes: np.ndarray | None, names: Sequence[str]) -> Picture:
    """Return where images lie in a plane, coloured by their class where it is known.

    Args:
        means: shape (n, 2).
        classes: shape (n,), numbers of classes, or None.
        names: of the classes.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    few, many = colormaps["tab10"], colormaps["tab20"]
    for number in range(1 if classes is None else len(names)):
        held = means if classes is None else means[classes == number]
        colour = few(number) if len(names) <= 10 else many(number % 20)
        label = None if classes is None else str(names[number])
        axes.plot(held[:, 0], held[:, 1], ".", color=colour, markersize=4, alpha=0.75, label=label)
    if classes is not None and len(names) <= LEGEND:
        axes.legend(frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set(xlabel="latent dimension 1", ylabel="latent dimension 2", aspect="equal")
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    told = "" if classes is None else ", coloured by class"
    return Picture(pixels, f"Held-out images in the latent plane, at the mean of their posterior{told}.")
