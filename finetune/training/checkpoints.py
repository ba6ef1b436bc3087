"""Checkpoint folders: staged, listed in a manifest, synced and renamed; read only when the manifest verifies.

A folder is a checkpoint if and only if every file of its manifest is there with its size and sha256. The manifest is
written last and carries its own sha256; the folder gets its name after that, so what a kill or a full disk leaves
behind is never taken for a checkpoint.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from finetune.errors import CheckFailed, EnvironmentFailed

FORMAT = 1  # raised when a reader of the last format would misread the folder
MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
HASHED_AT_ONCE = 2
SCANT = 2**24  # bytes: a disk with less is taken for the full one where a library does not say
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step."""
    return folder / f"{PREFIX}{step}"


def stage_path(folder: Path, step: int) -> Path:
    """Return the folder in which the checkpoint of a step is written, before it has its name."""
    return folder / f".{PREFIX}{step}.tmp"


def steps(folder: Path) -> list[int]:
    """Return the steps that have a folder, damaged or not, oldest first."""
    names = (each.name.removeprefix(PREFIX) for each in folder.glob(f"{PREFIX}*") if each.is_dir())
    return sorted(int(name) for name in names if name.isdigit())


def open_stage(folder: Path, step: int, needed: int) -> Path:
    """Return an empty folder to write a checkpoint into; leftovers of earlier attempts are removed.

    Args:
        folder: where the checkpoints are.
        step: the step of the checkpoint.
        needed: the bytes that are about to be written, so that a full disk is met before and not midway.

    Raises:
        EnvironmentFailed: there is less room than that.
    """
    with disk(folder, needed):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f".{PREFIX}*"):
            shutil.rmtree(leftover)
        require_room(folder, needed)
        stage = stage_path(folder, step)
        stage.mkdir()
    return stage


def require_room(folder: Path, needed: int, copies: int = 1) -> None:
    """Raise EnvironmentFailed when so many checkpoints of this size, in bytes, do not fit on the disk of a folder."""
    free = _free(folder)
    if free < needed * copies:
        many = "a checkpoint needs" if copies == 1 else f"{copies} checkpoints need"
        raise EnvironmentFailed(
            f"{folder}: {many} {needed * copies:,} bytes and {free:,} are free. Free some space, lower "
            "train.save_total_limit or move train.output_dir, and start the same command again, without --overwrite, "
            "to resume."
        )


def commit(folder: Path, step: int, facts: dict[str, Any]) -> Path:
    """Turn a stage into a checkpoint: modes, manifest, fsync, rename. Returns the checkpoint's path.

    Args:
        folder: where the checkpoints are.
        step: the step of the checkpoint.
        facts: what else the manifest says, such as the stamp that a resumed run is held against.
    """
    stage, path = stage_path(folder, step), checkpoint_path(folder, step)
    with disk(folder, sum(file.stat().st_size for file in _files(stage))):
        honour_umask(stage)
        manifest = {"format": FORMAT, "step": step, **facts, "files": _listed(stage)}
        manifest["sha256"] = _digest(manifest)
        (stage / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        _sync(stage / MANIFEST)
        for inner in (*(each for each in stage.rglob("*") if each.is_dir()), stage):
            _sync(inner)
        if path.exists():  # the same step again, after a resume from an earlier one
            aside = folder / f".{PREFIX}{step}.old"
            os.replace(path, aside)
            os.replace(stage, path)
            shutil.rmtree(aside)
        else:
            os.replace(stage, path)
        _sync(folder)
    return path


def honour_umask(folder: Path) -> None:
    """Give a folder's safetensors files the mode that umask grants; safetensors writes 0600 whatever it says."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for file in folder.rglob("*.safetensors"):
        file.chmod(mode)


def discard_stage(folder: Path, step: int) -> None:
    """Remove what an attempt to write this checkpoint has left."""
    shutil.rmtree(stage_path(folder, step), ignore_errors=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint after checking every file; ValueError says what is wrong with it."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing") from None
    except ValueError:
        raise ValueError(f"{MANIFEST} is damaged") from None
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _digest(manifest):
        raise ValueError(f"{MANIFEST} is damaged")
    if manifest["format"] != FORMAT:
        raise ValueError(f"its format is {manifest['format']}, and this version reads {FORMAT}")
    for name, listed in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{name} is missing")
        if file.stat().st_size != listed["bytes"]:
            raise ValueError(f"{name} has {file.stat().st_size} bytes instead of {listed['bytes']}")
        if _sha256(file) != listed["sha256"]:
            raise ValueError(f"{name} is not as it was written (sha256)")
    return manifest


def last_good(folder: Path, fits: Callable[[Path], None] | None = None) -> Path | None:
    """Return the newest checkpoint that verifies, or None; prints a line for each damaged one that is passed over.

    `fits` raises ValueError for one that cannot be loaded; when none can, the newest is what is returned.
    """
    for aside in folder.glob(f".{PREFIX}*.old"):  # killed between the two renames of `commit`
        committed = aside.with_name(aside.stem.removeprefix("."))
        if not committed.exists():
            os.replace(aside, committed)
    misfit = None
    for step in reversed(steps(folder)):
        path = checkpoint_path(folder, step)
        whole = False
        try:
            read_manifest(path)
            whole = True
            if fits is not None:
                fits(path)
        except (ValueError, OSError) as error:
            print(f"{path} is damaged and passed over: {error}", flush=True)
            misfit = misfit or (path if whole else None)
            continue
        return path
    return misfit


def require(path: Path) -> None:
    """Raise CheckFailed when a checkpoint that is needed does not verify."""
    try:
        read_manifest(path)
    except (ValueError, OSError) as error:
        raise CheckFailed(f"{path} is damaged: {error}.") from error


def manifest_of(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint that `last_good` returned."""
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def rotate(folder: Path, keep: int | None, best: int | None, good: int) -> None:
    """Remove the oldest checkpoints, by step, until `keep` are left; the last, the best and the good one stay.

    Args:
        folder: where the checkpoints are.
        keep: how many are to be left; None or 0 for all.
        best: the step of the best one, if there is one.
        good: the step of one that is known to be whole, for this process wrote it or resumed from it; a later one may
            be damaged.
    """
    known = steps(folder)
    if keep is None or keep <= 0 or len(known) <= keep:
        return
    spare = [step for step in known[:-1] if step not in (best, good)]
    for step in spare[: len(known) - max(keep, 1)]:
        path, aside = checkpoint_path(folder, step), folder / f".{PREFIX}{step}.gone"
        os.replace(path, aside)  # out of sight first: half a checkpoint is never seen
        shutil.rmtree(aside)


@contextmanager
def disk(folder: Path, needed: int = 0) -> Iterator[None]:
    """Turn "no space left", however a library says it, into EnvironmentFailed with path, needed and free bytes."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        text = str(error)
        full = getattr(error, "errno", None) in FULL or "No space left" in text or "File too large" in text
        if not full and "unexpected pos" not in text:  # what torch's zip writer says on a full disk
            raise
        asked = f"{needed:,} bytes needed, " if needed else ""
        where = folder if needed else _full(folder, getattr(error, "filename", None))
        raise EnvironmentFailed(
            f"{where}: the disk is full ({asked}{_free(where):,} bytes free); what was being written is not whole, "
            "and earlier checkpoints are intact. Free some space and start the same command again, without "
            "--overwrite, to resume."
        ) from error


def _full(folder: Path, file: Any) -> Path:
    """Return the folder whose disk is full: the file's own, or that of the caches where no file is named."""
    from huggingface_hub import constants

    if isinstance(file, str | os.PathLike) and os.path.dirname(file):
        own = Path(file).parent
        return folder if own.resolve().is_relative_to(folder.resolve()) else own
    others = [Path(constants.HF_HOME), Path(tempfile.gettempdir())]
    elsewhere = [each for each in others if _free(each) < SCANT] if file is None and _free(folder) >= SCANT else []
    return elsewhere[0] if elsewhere else folder


def _free(folder: Path) -> int:
    """Return the free bytes where a folder is, or will be."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free


def _files(stage: Path) -> list[Path]:
    return sorted(each for each in stage.rglob("*") if each.is_file())


def _listed(stage: Path) -> dict[str, dict[str, Any]]:
    """Return name, size and hash of every file, each of which is on the disk by then."""

    def entry(file: Path) -> tuple[str, dict[str, Any]]:
        _sync(file)
        return file.relative_to(stage).as_posix(), {"bytes": file.stat().st_size, "sha256": _sha256(file)}

    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:  # weights and optimizer are most of it: one each
        return dict(pool.map(entry, _files(stage)))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
