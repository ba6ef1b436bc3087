"""SIGTERM, SIGINT, the clock and a file, at any moment of a run and to any of its processes; then the command again.

python tests/faults/signals.py FOLDER --trials 20 --processes 2 --seed 1 --output FIGURES
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
from families import family, left

from finetune.training import checkpoints

MOMENTS = ("step", "evaluating", "saving")  # what the run is about to do, or has just begun


def trial(home: Path, folder: Path, cell: tuple[str, int], moment: str, expected: dict[str, str],
          draw: random.Random) -> dict[str, Any]:  # fmt: skip
    """Stop one run once, let it go on, and say how it ended."""
    kind, processes = cell
    recipe = kinds.recipe(home, folder, kind, processes, dataloader_num_workers=1)
    running = forking.start(["train", str(recipe)], processes, folder / "log")
    at = draw.randint(2, 20)
    running.listen(60, lambda said: said[0] == 0 and said[1] == moment and said[2] >= at)
    rank, number = draw.choice([None, *range(processes)]), draw.choice([signal.SIGTERM, signal.SIGINT])
    running.listen(draw.uniform(0, 0.02))
    readers = family(*running.pids)
    sent, reached = time.monotonic(), running.last("step")
    running.signal(number, rank)
    codes = running.wait(60)
    seconds = time.monotonic() - sent
    good = checkpoints.last_good(folder / "run" / "checkpoints")
    step = 0 if good is None else int(good.name.rpartition("-")[2])
    found = {"kind": kind, "processes": processes, "moment": moment, "rank": rank, "signal": number, "codes": codes,
             "seconds": seconds, "reached": reached, "step": step, "log": str(folder / "log")}  # fmt: skip
    log = (folder / "log").read_text()
    found["one_line"] = log.count("finetune: stopped by SIG") == 1 and "Traceback" not in log
    found["committed_last"] = step == running.last("step")
    found["readers"], found["orphans"] = len(readers), len(left(readers))
    again = forking.start(["train", str(recipe)], processes, folder / "log")
    found["ended"] = again.wait()
    mine = forking.fingerprint(folder / "run") if not any(found["ended"]) else {}
    found["different"] = [name for name in {**expected, **mine} if mine.get(name) != expected.get(name)]
    return found


def good(found: dict[str, Any]) -> bool:
    """Say whether a trial went as the contract has it."""
    stopped = set(found["codes"]) == {143} and found["one_line"] and found["committed_last"] and not found["orphans"]
    return stopped and not any(found["ended"]) and not found["different"] and found["seconds"] <= 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, as its children do
    forking.load()
    home, draw = kinds.make_home(given.folder / "home"), random.Random(given.seed)
    expected, trials = {}, []
    for kind in kinds.KINDS:
        folder = given.folder / "whole" / kind
        recipe = kinds.recipe(home, folder, kind, given.processes)
        codes = forking.start(["train", str(recipe)], given.processes, folder / "log").wait()
        assert not any(codes), (folder / "log").read_text()
        expected[kind] = forking.fingerprint(folder / "run")
    for number in range(given.trials):
        kind, moment = list(kinds.KINDS)[number % 4], MOMENTS[number // 4 % 3]
        folder = given.folder / f"trial-{number}"
        trials.append(trial(home, folder, (kind, given.processes), moment, expected[kind], draw))
        sys.stderr.write(f"{'' if good(trials[-1]) else 'BAD '}{trials[-1]}\n")
        if good(trials[-1]):
            shutil.rmtree(folder)
    figures = {
        "stops": len(trials), "bad": [each for each in trials if not good(each)], "seed": given.seed,
        "slowest": max(each["seconds"] for each in trials), "readers": sum(each["readers"] for each in trials),
    }  # fmt: skip
    given.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
