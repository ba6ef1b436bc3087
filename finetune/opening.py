"""The folder of a run before it trains: what may lie in it, what starting anew may remove, and its first files."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finetune import artefact
from finetune.errors import EnvironmentFailed, UserError

if TYPE_CHECKING:
    from finetune.recipe import Recipe

NOT_READ = {"output_dir", "run_name", "cache_dir"}  # options that name a folder, or look like one, and hold no source
GLOBBED = {"data", "evaluate"}  # sections whose paths may have wildcards


def refuse_occupied(run: Path, overwrite: bool) -> None:
    """Refuse an output_dir that cannot be written into, holds a finished run or what is none.

    Raises:
        UserError: of these.
        EnvironmentFailed: nothing can be written there.
    """
    try:
        there = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
    except OSError as error:  # a name that is too long
        raise UserError(f"train.output_dir: {run}: {error.strerror}.") from None
    if not there.is_dir():
        raise UserError(f"train.output_dir: {there} is a file.")
    try:
        TemporaryDirectory(dir=there).cleanup()  # asking for rights is not enough: root has them all, in /proc too
    except OSError as error:
        raise EnvironmentFailed(f"train.output_dir: nothing can be written into {there} ({error.strerror}).") from None
    if not overwrite and run.exists() and artefact.status(run) == "finished":
        raise UserError(
            f"train.output_dir: {run} holds a finished run. Give another folder, or --overwrite to start anew."
        )
    own = artefact.staged(run / artefact.STATUS).name  # of a start that was killed in its first write
    names = [] if not run.exists() or artefact.status(run) else [each.name for each in run.iterdir()]
    strangers = [name for name in names if name != own]
    if strangers:
        raise UserError(f"train.output_dir: {run} holds other files ({strangers[0]}) and no run. Give another folder.")


def refuse_own_sources(recipe: Recipe, folder: Path) -> None:
    """Refuse to start anew in a folder that holds what the recipe reads: it would be removed, and lost."""
    for option, named in _named(recipe.to_dict()):
        found = glob.glob(named, recursive=True) if option.split(".")[0] in GLOBBED and glob.has_magic(named) else []
        if any(os.path.exists(each) and _within(each, folder) for each in (named, *found)):
            raise UserError(
                f"{option}: {named} lies in {folder}, which --overwrite would remove. Give another train.output_dir."
            )


def _named(values: Any, option: str = "") -> Iterator[tuple[str, str]]:
    """Yield (option, text) for every text of a recipe that may be a path; those of `publish` are names on the Hub."""
    if isinstance(values, str):
        yield option, values
    elif isinstance(values, list):
        for each in values:
            yield from _named(each, option)
    elif isinstance(values, dict):
        for name, each in values.items():
            if name not in NOT_READ and (option or name != "publish"):
                yield from _named(each, f"{option}.{name}".lstrip("."))


def _within(path: str, folder: Path) -> bool:
    """Say whether a path, or what it is a link to, is the folder or lies in it."""
    written, real = Path(os.path.abspath(path)), Path(path).resolve()
    return written.is_relative_to(os.path.abspath(folder)) or real.is_relative_to(folder.resolve())


def open_folder(run: Path, recipe: Recipe) -> None:
    """Make the folder of a run and mark it as unfinished; with `train.overwrite`, empty it of the run that was there.

    From the first byte to the last the folder is a run's, so that the same command takes it after a kill.
    """
    if recipe.train.overwrite and artefact.status(run):
        artefact.write_status(run, "unfinished", recipe.task.kind)  # half removed, it must not pass for finished
        _empty(run)
    run.mkdir(parents=True, exist_ok=True)
    if not artefact.status(run):
        artefact.write_status(run, "unfinished", recipe.task.kind)
    if not (run / artefact.RECIPE).exists():  # a run that goes on keeps its own until the trainer has compared the two
        recipe.write(run / artefact.RECIPE)


def _empty(run: Path) -> None:
    """Remove all but the run's mark; the checkpoints first, so that what is left is never resumed."""
    for each in sorted(run.iterdir(), key=lambda path: path.name != artefact.CHECKPOINTS):
        if each.name == artefact.STATUS:
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
