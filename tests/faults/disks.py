"""Runs on a disk that is too small for them; then room is made and the same command is given again.

python tests/faults/disks.py FOLDER KIND (--mebibytes 1 2 … | --kibibytes 16 32 …) --output FIGURES

FOLDER/disk must be a tmpfs of its own, which is given each size of --mebibytes in turn. Every size is tried twice: as
it is, and with a run that believes its checkpoints to need nothing: then the disk fills in the middle of writing one.
With --kibibytes the kernel lets no file become larger than that in the run's process, from its first checkpoint on or
from a later one: for machines where nothing may be mounted.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import forking
import kinds

from finetune.training import checkpoints

NUMBERS = r"needs? [\d,]+ bytes and [\d,]+ are free|[\d,]+ bytes needed, [\d,]+ bytes free|full \([\d,]+ bytes free\)"
WHOLE = 256  # MiB, which suffice
LATER = 3 * kinds.SAVE_STEPS  # a step of 24


def resize(disk: Path, mebibytes: float) -> None:
    """Give the disk another size; it may hold more by then."""
    subprocess.run(["mount", "-o", f"remount,size={int(mebibytes * 1024)}k", str(disk)], check=True)


def careless() -> None:
    """In a fork: let the run believe that checkpoints need no room."""
    from finetune.training.checkpointed import Checkpointed

    Checkpointed._bytes_needed = lambda _: 0  # type: ignore[method-assign]


def limited(kibibytes: int, after: int) -> None:
    """In a fork: let the kernel refuse what would make a file larger, from the first save behind a step on."""
    from finetune.training.checkpointed import Checkpointed

    save = Checkpointed._save_checkpoint

    def capped(self: Any, *args: Any) -> None:
        if self.state.global_step > after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (kibibytes * 1024, kibibytes * 1024))
        save(self, *args)

    Checkpointed._save_checkpoint = capped  # type: ignore[method-assign]


def on_disk(home: Path, disk: Path, kind: str, size: float, blind: bool, expected: dict[str, str]) -> dict[str, Any]:
    """Return what came of a disk of some size."""
    shutil.rmtree(disk / "trial", ignore_errors=True)
    recipe = kinds.recipe(home, disk / "trial", kind, 1)
    resize(disk, size)
    log = disk.with_name(f"log-{size}-{blind}")
    found = trial(recipe, log, expected, careless if blind else None, partial(resize, disk, WHOLE))
    return {"mebibytes": size, "blind": blind, **found}


def with_limit(home: Path, place: Path, kind: str, kibibytes: int, after: int, expected: dict[str, str]) -> Any:
    """Return what came of a limit on the size of files."""
    recipe = kinds.recipe(home, place, kind, 1)
    found = trial(recipe, place.with_suffix(".log"), expected, partial(limited, kibibytes, after))
    return {"kibibytes": kibibytes, "after": after, **found}


def trial(
    recipe: Path,
    log: Path,
    expected: dict[str, str],
    narrow: Callable[[], None] | None,
    widen: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Run where room is short, look at what is left, make room and run again; `narrow` is called in the first run."""
    run = recipe.parent / "run"
    running = forking.start(["train", str(recipe)], 1, log, narrow)
    code = running.wait()[0]
    said = [line for line in log.read_text().splitlines() if line.startswith("finetune: ")]
    parts = [each.name for each in (run / "checkpoints").glob(".*")] if run.exists() else []
    known = checkpoints.steps(run / "checkpoints")
    broken = []
    for step in known:
        try:
            checkpoints.read_manifest(checkpoints.checkpoint_path(run / "checkpoints", step))
        except ValueError as error:
            broken.append(str(error))
    numbers = re.search(NUMBERS, said[0]) if said else None
    found = {"code": code, "said": said, "parts": parts, "broken": broken,
             "lost": running.last("saved") > max(known, default=0), "saved": running.last("saved"),
             "named": numbers is not None and str(run.parent) in said[0]}  # fmt: skip
    widen()
    found["ended"] = forking.start(["train", str(recipe)], 1, log).wait()[0] if code else 0
    mine = forking.fingerprint(run) if not found["ended"] else {}
    found["different"] = [name for name in {**expected, **mine} if mine.get(name) != expected.get(name)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=list(kinds.KINDS))
    parser.add_argument("--mebibytes", type=float, nargs="+", default=[])
    parser.add_argument("--kibibytes", type=int, nargs="+", default=[])
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    forking.load()
    home, disk, whole = kinds.make_home(given.folder / "home"), given.folder / "disk", given.folder / "whole"
    recipe = kinds.recipe(home, whole, given.kind, 1)
    assert forking.start(["train", str(recipe)], 1, whole / "log").wait() == [0], (whole / "log").read_text()
    expected = forking.fingerprint(whole / "run")
    trials = [
        on_disk(home, disk, given.kind, size, blind, expected) for size in given.mebibytes for blind in (False, True)
    ]
    trials += [
        with_limit(home, given.folder / f"limit-{size}-{after}", given.kind, size, after, expected)
        for size in given.kibibytes
        for after in (0, LATER)
    ]
    given.output.write_text(json.dumps({"trials": trials}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
