"""`kill -9` at random instants of a run, the same command again, until it ends: is it the unbroken run to the bit?

python tests/faults/kills.py FOLDER --kills 60 --processes 1 2 --seed 1 --output FIGURES

A trial is a chain of kills of one run and the end of it. A kill of the kind "save" comes while a checkpoint is being
written; others come at any instant between the start of the command and its end. With two processes, one is killed
first and the other follows, as a launcher would have it, or both go at once.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import forking
import kinds

from finetune import artefact
from finetune.training import checkpoints

CHAIN = 4  # kills of one run


class Whole:
    """The unbroken run of a kind: what it leaves, how long it takes, and how long a save."""

    def __init__(self, home: Path, folder: Path, kind: str, processes: int) -> None:
        recipe = kinds.recipe(home, folder, kind, processes)
        running = forking.start(["train", str(recipe)], processes, folder / "log")
        begun, saves = 0.0, []

        def timed(said: tuple[Any, ...]) -> bool:
            nonlocal begun
            if said[:2] == (0, "saving"):
                begun = time.monotonic()
            elif said[:2] == (0, "saved"):
                saves.append(time.monotonic() - begun)
            return False

        running.listen(120, timed)
        codes = running.wait()
        assert codes == [0] * processes, (folder / "log").read_text()
        self.seconds, self.save = time.monotonic() - running.started, sorted(saves)[len(saves) // 2]
        self.steps, self.saves = running.last("step"), len(saves)
        self.fingerprint = forking.fingerprint(folder / "run")


def chain(home: Path, folder: Path, kind: str, processes: int, whole: Whole, draw: random.Random) -> dict[str, Any]:
    """Kill one run again and again, let it end, and say what became of it."""
    recipe = kinds.recipe(home, folder, kind, processes)
    found: dict[str, Any] = {"kind": kind, "processes": processes, "kills": 0, "inside_a_save": 0, "redone": 0,
                             "lost": 0, "crashes": 0, "different": 0, "log": str(folder / "log")}  # fmt: skip
    committed = 0
    for number in range(CHAIN):
        running = forking.start(["train", str(recipe)], processes, folder / "log")
        before = _wait_and_kill(running, number, whole, draw)
        codes = running.wait()
        reached, committed = max(running.last("step"), 0), max(committed, running.last("saved"))
        found["crashes"] += any(before)
        if any(before) or 0 in codes or artefact.status(folder / "run") == "finished":
            break  # it was quicker
        found["kills"] += 1
        found["inside_a_save"] += running.saving
        good = checkpoints.last_good(folder / "run" / "checkpoints") if (folder / "run").exists() else None
        last = 0 if good is None else int(good.name.rpartition("-")[2])
        found["lost"] += last < committed
        found["redone"] = max(found["redone"], reached - last)
    if not found["crashes"] and artefact.status(folder / "run") != "finished":
        running = forking.start(["train", str(recipe)], processes, folder / "log")
        found["crashes"] += any(running.wait())
    if not found["crashes"]:
        mine = forking.fingerprint(folder / "run")
        wrong = [name for name in {**whole.fingerprint, **mine} if mine.get(name) != whole.fingerprint.get(name)]
        found["different"], found["differences"] = int(bool(wrong)), wrong
    return found


def _wait_and_kill(running: forking.Running, number: int, whole: Whole, draw: random.Random) -> list[int]:
    """Return the exit codes of processes that had ended before they were killed."""
    if number % 2:
        running.listen(60, lambda said: said[:2] == (0, "saving"))
        running.listen(draw.uniform(0, whole.save))
    else:
        running.listen(draw.uniform(0, whole.seconds * (0.9 if number else 0.6)))
    before = list(running.ended().values())
    first = draw.choice([None, *range(len(running.pids))])
    if first is not None:
        running.signal(signal.SIGKILL, first)
        running.listen(draw.uniform(0, 0.05))
    running.signal(signal.SIGKILL)
    return before


def _killed(trials: list[dict[str, Any]], cell: tuple[str, int]) -> int:
    return sum(each["kills"] for each in trials if (each["kind"], each["processes"]) == cell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kinds", nargs="+", default=list(kinds.KINDS))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    forking.load()
    home, draw, started = kinds.make_home(given.folder / "home"), random.Random(given.seed), time.monotonic()
    cells = [(kind, count) for kind in given.kinds for count in given.processes]
    whole = {cell: Whole(home, given.folder / "whole" / f"{cell[0]}-{cell[1]}", *cell) for cell in cells}
    trials: list[dict[str, Any]] = []
    while sum(each["kills"] for each in trials) < given.kills:
        cell = min(cells, key=lambda each: _killed(trials, each))
        folder = given.folder / f"trial-{len(trials)}"
        trials.append(chain(home, folder, *cell, whole[cell], draw))
        bad = any(trials[-1][name] for name in ("crashes", "lost", "different"))
        sys.stderr.write(f"{'BAD ' if bad else ''}{trials[-1]}\n")
        if not bad:
            shutil.rmtree(folder)
    counted = ("kills", "inside_a_save", "crashes", "lost", "different")
    figures = {name: sum(each[name] for each in trials) for name in counted}
    figures |= {"runs": len(trials), "most_steps_redone": max(each["redone"] for each in trials)}
    figures |= {"save_steps": kinds.SAVE_STEPS, "seed": given.seed, "seconds": round(time.monotonic() - started, 1)}
    by_cell = {f"{kind}, {count}": _killed(trials, (kind, count)) for kind, count in cells}
    said = json.dumps({**figures, "kills_by_kind_and_processes": by_cell, "trials": trials}, indent=1)
    if given.output is None:
        sys.stdout.write(said + "\n")
    else:
        given.output.write_text(said + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
