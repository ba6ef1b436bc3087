"""What a command prints when it is done: scores with their intervals, answers, paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import artefact

SPACE = 24  # characters of an interval
MINOR = ("micro_", "weighted_")  # with "f1/negative" and the like: in scores.json and the report

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.publication import Publication
    from finetune.task import Scores


def run(folder: Path) -> str:
    """Return a finished run's scores, its baselines' on the same rows beside them, and where its report lies.

    Of a folder with a run for each of several seeds: the mean of each score, and what each seed scored.
    """
    if (folder / artefact.SEEDS).exists():
        return seeds(artefact.read_json(folder / artefact.SEEDS), folder)
    report = folder / artefact.REPORT
    return "\n".join(
        [*tables(folder), *_private(folder), f"run: {folder}", *([f"report: {report}"] if report.exists() else [])]
    )


def _private(folder: Path) -> list[str]:
    """Return the line of what a private run promises; [] of any other."""
    from finetune.training.private_options import told

    file = folder / artefact.ENVIRONMENT
    facts = artefact.read_json(file).get("privacy") if file.exists() else None
    return [] if facts is None else [f"private: {told(facts)}"]


def seeds(found: Mapping[str, Any], folder: Path) -> str:
    """Return the mean of each score over several seeds, its interval, what each seed scored, and the rivals' means."""
    split = "test" if "test" in found["scores"] else next(iter(found["scores"]), "no row was scored")
    table = found["scores"].get(split, {})
    shown = {name: each for name, each in table.items() if "/" not in name and not name.startswith(MINOR)}
    width = max(map(len, [split, *shown]))
    numbers, rivals = list(found["runs"]), found["baselines"]
    if not table:
        return f"{split}\nruns: {folder}"
    head = f"{split:<{width + 2}}  {'mean':>8}  {'95 % over seeds':<{SPACE - 2}}"
    lines = [head + "".join(f"{name:>12}" for name in [*(f"seed {each}" for each in numbers), *rivals])]
    for name, each in shown.items():
        means = [each["values"].get(number) for number in numbers]
        means += [rival.get(name, {"mean": None})["mean"] for rival in rivals.values()]
        cells = "".join(f"{'' if value is None else f'{value:.4f}':>12}" for value in means)
        lines.append(f"  {name:<{width}}  {each['mean']:>8.4f}{_interval(each):<{SPACE}}{cells}")
    n = len(numbers)
    lines.append(f"n = {n} {'seed: no interval' if n == 1 else 'seeds, the same rows'}; runs: {folder}")
    if n == 2:
        lines.append("two seeds are too few for an interval; give three or more")
    if any(each["cut"] for each in shown.values()):
        lines.append("intervals end where the values of a score do")
    if (folder / artefact.REPORT).exists():
        lines.append(f"report: {folder / artefact.REPORT}")
    return "\n".join(line.rstrip() for line in lines)


def tables(folder: Path) -> list[str]:
    """Return the lines of the scores of every split, rivals beside those of the last one."""
    found = artefact.read_json(folder / artefact.SCORES)
    baselines = found.pop("baselines", {})
    lines = [line for split, table in found.items() if split != "test" for line in _table(split, table)]
    return lines + _table("test", found.get("test", {}), baselines)


def scores(found: Mapping[str, Scores]) -> str:
    """Return the scores of each split, one a line."""
    plain = {split: {name: vars(score) for name, score in table.items()} for split, table in found.items()}
    return "\n".join(line for split, table in plain.items() for line in _table(split, table))


def answers(table: Dataset) -> str:
    """Return the answers as JSON, one row a line."""
    return "\n".join(json.dumps(row, ensure_ascii=False, default=str) for row in table)


def path(written: Path) -> str:
    """Return the path of what was written."""
    return str(written)


def drawn(found: list[str] | Path) -> str:
    """Return texts with a line between each, or the path of the images."""
    return str(found) if isinstance(found, Path) else "\n---\n".join(found)


def publication(made: Publication) -> str:
    """Return what was published, or the files that would be, with their sizes."""
    if made.commit is None:
        width = max(map(len, made.files))
        lines = [f"{name:<{width}}  {size:>12,} bytes" for name, size in made.files.items()]
        count, size = len(made.files), sum(made.files.values())
        total = f"{count} files, {size:,} bytes, would go to {made.repository} ({made.revision})."
        return "\n".join([*lines, total, f"Not published: {', '.join(made.left) or 'nothing'}."])
    said = [f"{made.repository} at {made.commit[:12]}" + (f", tag {made.tag}" if made.tag else "")]
    return "\n".join([*said, *([f"loaded elsewhere: {made.check['said']}"] if made.check else [])])


def _table(title: str, table: Mapping[str, Any], rivals: Mapping[str, Mapping[str, Any]] | None = None) -> list[str]:
    """Return the main scores of one split, one a line, with those of rivals in columns beside them."""
    rivals = rivals or {}
    shown = {name: score for name, score in table.items() if "/" not in name and not name.startswith(MINOR)}
    if not shown:
        return []
    width = max(map(len, [*shown, *(name for rival in rivals.values() for name in rival if name.endswith("_gap"))]))
    rows = next(iter(shown.values()))["n"]
    lines = [f"{title} (n = {rows})"]
    if rivals:
        lines[0] = f"{lines[0]:<{width + SPACE + 12}}" + "".join(f"{name:>12}" for name in rivals)
    for name, score in shown.items():
        beside = "".join(f"{_value(rival.get(name)):>12}" for rival in rivals.values())
        other = "" if score["n"] == rows else f"  n = {score['n']}"
        lines.append(f"  {name:<{width}}  {_value(score):>8}{_interval(score):<{SPACE}}{beside}{other}")
    for rival, theirs in rivals.items():
        gaps = {name: score for name, score in theirs.items() if name.endswith("_gap") and name[:-4] in shown}
        lines += [
            f"  {name:<{width}}  {_value(gap):>8}{_interval(gap):<{SPACE}} over {rival}" for name, gap in gaps.items()
        ]
    return [line.rstrip() for line in lines]


def _value(score: Mapping[str, Any] | None) -> str:
    return "" if score is None else f"{score['value']:.4f}"


def _interval(score: Mapping[str, Any]) -> str:
    return "" if score["low"] is None else f"  [{score['low']:.4f}, {score['high']:.4f}]"
