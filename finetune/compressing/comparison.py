"""`finetune compare`: several runs beside the first, by what they cost and what they score; a table and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from finetune import artefact
from finetune.compressing.measuring import WARM_UP, measured_apart
from finetune.errors import UserError
from finetune.evaluation.wording import HEADLINES, LESS_IS_BETTER

PASSES = 2  # over all runs, one after the other: a busy minute of the machine hits each of them
COLUMNS = ("run", "MB", "weights", "ms", "p95", "batch ms", "memory MB", "score", "gap to the first")


def compare(runs: tuple[Path, ...], output: Path | None = None) -> dict[str, Any]:
    """Measure runs one after the other, each in a fresh process, and hold the scores that they have against the first.

    Args:
        runs: at least two; the first is what the others are held against.
        output: a folder for comparison.json, comparison.md and pareto.png.

    Returns:
        {score, split, rows: a dict for each run, fastest first after the original}.

    Raises:
        UserError: a run is not finished, they are of several tasks, or have no score in common.
        CheckFailed: a run does not come back.
    """
    for run in runs:
        artefact.open_run(run)
    if len(runs) < 2:
        raise UserError("one run cannot be compared: finetune compare RUN RUN …, the original first.")
    if output is not None and (output.is_file() or not output.absolute().parent.is_dir()):
        raise UserError(f"--output: {output} cannot be made: it is a file, or {output.absolute().parent} is no folder.")
    kinds = {str(artefact.read_json(run / artefact.STATUS)["task"]): run for run in runs}
    if len(kinds) > 1:
        said = ", ".join(f"{run} is {kind}" for kind, run in kinds.items())
        raise UserError(f"only runs of one task can be compared: {said}.")
    tables = [artefact.read_json(run / artefact.SCORES) for run in runs]
    split = next((name for name in ("test", "validation") if all(name in table for table in tables)), None)
    score = next((name for name in HEADLINES if split and all(name in table[split] for table in tables)), None)
    if split is None or score is None:
        raise UserError("these runs have no score of one split in common: they need test or validation rows.")
    found: list[list[dict[str, Any]]] = [[] for _ in runs]
    for _ in range(PASSES):
        for place, run in enumerate(runs):
            print(f"measuring {run}", flush=True)
            found[place].append(measured_apart(run))
    rows = [
        _row(run, measured, table[split][score], None if run == runs[0] else _gap(run, runs[0], score))
        for run, measured, table in zip(runs, found, tables, strict=True)
    ]
    last = found[0][0]
    result = {
        "score": score,
        "split": split,
        "less_is_better": score in LESS_IS_BETTER,
        "device": last["device"],
        "threads": last["threads"],
        "rows_in_batch": last["batch"]["rows"],
        "tokens_in_batch": last["batch"]["tokens"],
        "runs": rows,
    }
    if output is not None:
        _write(result, output)
    return result


def _row(
    run: Path, measured: list[dict[str, Any]], score: dict[str, Any], gap: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "run": run.resolve().name,
        "bytes": measured[0]["bytes"],
        "weights": measured[0]["weights"],
        "nonzero": measured[0]["nonzero"],
        "memory": min(each["memory"] for each in measured),
        "single_ms": _milliseconds(measured, "single"),
        "batch_ms": _milliseconds(measured, "batch"),
        "score": score,
        "gap": gap,
    }


def _milliseconds(measured: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    times = 1000 * np.concatenate([each[kind]["times"] for each in measured])
    return {"median": float(np.median(times)), "p95": float(np.quantile(times, 0.95)), "calls": len(times)}


def _gap(run: Path, first: Path, score: str) -> dict[str, Any] | None:
    """Return the score's difference to the first run, with a paired interval; None where rows are not the same."""
    from finetune.evaluation.paired import paired_scores

    found = paired_scores(run, first, resamples=1000) or {}
    return artefact.plain_scores(found).get(f"{score}_gap")


def shown(result: dict[str, Any]) -> str:
    """Return the table as Markdown, and what its columns mean."""
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(_cells(row) for row in result["runs"])]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", _legend(result)])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    zeros = "" if row["nonzero"] in (None, row["weights"]) else f" ({row['nonzero'] / 1e6:.2f} M not zero)"
    return (
        row["run"],
        f"{row['bytes'] / 1e6:.1f}",
        f"{row['weights'] / 1e6:.2f} M{zeros}",
        f"{row['single_ms']['median']:.1f}",
        f"{row['single_ms']['p95']:.1f}",
        f"{row['batch_ms']['median']:.0f}",
        f"{row['memory'] / 1e6:.0f}",
        _with_interval(row["score"], "{:.4f}"),
        _with_interval(row["gap"], "{:+.4f}") if row["gap"] else "",
    )


def _with_interval(score: dict[str, Any], form: str) -> str:
    if score["low"] is None:
        return form.format(score["value"])
    return f"{form} [{form}, {form}]".format(score["value"], score["low"], score["high"])


def _legend(result: dict[str, Any]) -> str:
    return (
        "MB: weights on disk, with those of an adapter's base. ms, p95: median and 95th percentile for one row of its "
        f"own length; batch ms: median for {result['rows_in_batch']} rows of {result['tokens_in_batch']} tokens; "
        f"both after {WARM_UP} calls to warm up, on {result['device']} with {result['threads']} threads. memory MB: by "
        f"which a fresh process grows at most. score: {result['score']} on {result['split']}, 95 % intervals; that of "
        "the gap is paired."
    )


def _write(result: dict[str, Any], output: Path) -> None:
    from finetune.compressing.pareto import plot

    output.mkdir(exist_ok=True)
    artefact.write_json(output / "comparison.json", result)
    plot(result, output / "pareto.png")
    lines = (f"# {result['score']} against cost", "![score against size, latency, memory](pareto.png)", shown(result))
    (output / "comparison.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
