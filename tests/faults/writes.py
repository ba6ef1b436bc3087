"""Death at the n-th thing that a save does to the disk, for every n; then the same command again.

python tests/faults/writes.py FOLDER KIND --output FIGURES

The run is stopped where its last save but one begins; there, a fork goes on for each n, and dies before the n-th time
that a file is opened to be written, renamed, removed, synced or given its mode, or safetensors writes one or has done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import forking
import kinds

from finetune.training import checkpoints

EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree", "os.truncate"}
STEP = 21  # of 24: a save with a rotation after it


def die_at(number: int) -> None:
    """Let this process die before its n-th change of the disk."""
    left = number

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event in EVENTS or writes:
            count()

    def counted(original: Any) -> Any:
        def do(*args: Any, **kwargs: Any) -> Any:
            count()
            result = original(*args, **kwargs)
            count()
            return result

        return do

    from finetune.training import packing, saved_state

    os.fsync = counted(os.fsync)
    packing.save_file, saved_state.save_file = counted(packing.save_file), counted(saved_state.save_file)
    sys.addaudithook(hook)


def stop_there(run: Path, backup: Path, pipe: int) -> None:
    """In the run's process: at the save of STEP, try every death, and tell of what each has left."""
    from finetune.training.checkpointed import Checkpointed

    save = Checkpointed._save_checkpoint

    def every_death(self: Any, *args: Any) -> None:
        if self.state.global_step != STEP:
            return save(self, *args)
        shutil.copytree(run, backup)
        number, status = 0, -1
        while status:
            number += 1
            shutil.rmtree(run)
            shutil.copytree(backup, run)
            numbers = random.getstate()
            pid = os.fork()
            if not pid:
                random.setstate(numbers)  # Python seeds anew in a fork
                die_at(number)
                save(self, *args)
                os._exit(0)
            status = os.waitpid(pid, 0)[1]
            good = checkpoints.last_good(run / "checkpoints")
            kept = backup.with_name(f"dead-{number}")
            shutil.copytree(run, kept)
            os.write(pipe, json.dumps([number, status, str(good)]).encode() + b"\n")
        os._exit(0)

    Checkpointed._save_checkpoint = every_death


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=list(kinds.KINDS))
    parser.add_argument("--every", type=int, default=1, help="the same command again after every so many deaths only")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    forking.load()
    home = kinds.make_home(given.folder / "home")
    whole = given.folder / "whole"
    running = forking.start(["train", str(kinds.recipe(home, whole, given.kind, 1))], 1, whole / "log")
    assert running.wait() == [0], (whole / "log").read_text()
    expected = forking.fingerprint(whole / "run")

    folder = given.folder / "trial"
    recipe = kinds.recipe(home, folder, given.kind, 1)
    reader, writer = os.pipe()
    running = forking.start(
        ["train", str(recipe)], 1, folder / "log", lambda: stop_there(folder / "run", folder / "before", writer)
    )
    os.close(writer)
    assert running.wait(200) == [0], (folder / "log").read_text()
    with os.fdopen(reader) as said:
        deaths = [json.loads(line) for line in said]
    lost, crashes, different = [], [], []
    for number, status, good in deaths:
        committed = int(good.rpartition("-")[2]) if good != "None" else 0
        if committed < (STEP - kinds.SAVE_STEPS if status else STEP):
            lost.append(number)
        if number % given.every:
            continue
        shutil.rmtree(folder / "run")
        os.replace(folder / f"dead-{number}", folder / "run")
        running = forking.start(["train", str(recipe)], 1, folder / f"log-{number}")
        if running.wait() != [0]:
            crashes.append(number)
        elif forking.fingerprint(folder / "run") != expected:
            different.append(number)
    figures = {"deaths": len(deaths) - 1, "lost": lost, "crashes": crashes, "different": different}
    given.output.write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
