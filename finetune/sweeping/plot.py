"""The picture of a sweep: the score over each option that was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLUMNS = 3


def write_plot(path: Path, result: dict[str, Any]) -> None:
    """Draw the validation score of every whole trial over each option, the best one marked, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    whole = [each for each in result["trials"] if each["value"] is not None]
    shown = sorted({option for each in whole for option in each["options"]})
    rows = -(-len(shown) // COLUMNS)
    wide = min(COLUMNS, len(shown))
    figure, axes = pyplot.subplots(rows, wide, figsize=(4 * wide, 3 * rows), squeeze=False, layout="constrained")
    for place, option in enumerate(shown):
        axis = axes[place // COLUMNS][place % COLUMNS]
        told = [each for each in whole if option in each["options"]]
        values = [each["options"][option] for each in told]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        along = values if numbers else [str(value) for value in values]
        axis.scatter(along, [each["value"] for each in told], s=18, alpha=0.7)
        for value, each in zip(along, told, strict=True):
            if each["number"] == result["best"]:
                axis.scatter([value], [each["value"]], s=80, facecolors="none", edgecolors="tab:red", label="best")
        if numbers and min(values) > 0 and max(values) >= 20 * min(values):
            axis.set_xscale("log")
        elif numbers:
            axis.locator_params(axis="x", nbins=4)  # or long numbers run into each other
        axis.set_xlabel(option)
        axis.set_ylabel(f"validation {result['score']}")
    for place in range(len(shown), rows * wide):
        axes[place // COLUMNS][place % COLUMNS].set_axis_off()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
