"""From what a recipe calls a model to a folder, or to a Hub id and the commit that it means."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from finetune.errors import EnvironmentFailed, UserError, did_you_mean
from finetune.foreign.files import refuse_pickle, weight_files
from finetune.loading.options import ModelOptions

PACKAGE = "package://"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class Source:
    """A place that transformers can load from."""

    place: str  # a folder, or a Hub id
    commit: str | None = None  # of a Hub id
    gguf_file: str | None = None

    @property
    def folder(self) -> Path | None:
        """Return the folder, or None for a Hub id."""
        return Path(self.place) if Path(self.place).is_dir() else None

    def file(self, name: str) -> Path | None:
        """Return the path of a file of the source, fetched where it lies on the Hub; None where there is none.

        Raises:
            UserError: the repository or its revision is gone, or not for this token.
        """
        if (folder := self.folder) is not None:
            return folder / name if (folder / name).is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

        try:
            return Path(hf_hub_download(self.place, name, revision=self.commit))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            at = f" at {self.commit}" if self.commit else ""
            raise UserError(f"model.path: the Hub has no {self.place}{at}, or none for this token.") from None
        except EntryNotFoundError:  # nor is it in the cache of a machine without a network: the library will say so
            return None

    def keywords(self) -> dict[str, str]:
        """Return what every from_pretrained needs to read from exactly here."""
        named = {"revision": self.commit, "gguf_file": self.gguf_file}
        return {name: value for name, value in named.items() if value is not None}


def source_folder(path: str, option: str = "model.path") -> str:
    """Return the folder that `path` names, or `path` itself when it is a Hub id. Reads no network.

    `package://NAME/FOLDER` is a folder inside an installed Python package; the package is not imported.

    Raises:
        UserError: the package, the folder or a well-formed Hub id is missing; the line names the nearest folder.
    """
    if path.startswith(PACKAGE):
        return _package_folder(path, option)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return str(folder)
    if folder.is_file():
        refuse_pickle(folder, option)
        raise UserError(f"{option}: {path} is a file; give the folder that holds config.json and model.safetensors.")
    if _looks_like_a_path(path):
        raise UserError(f"{option}: there is no folder {path}.{_nearest_folder(folder)} {_known_forms()}")
    if not re.fullmatch(r"[\w.-]{1,96}(/[\w.-]{1,96})?", path) or ".." in path or "--" in path:
        raise UserError(
            f"{option}: {path!r} is neither a folder nor a Hub id.{_nearest_folder(folder)} {_known_forms()}"
        )
    return path


def locate(options: ModelOptions, option: str = "model.path") -> Source:
    """Return where the weights are; a Hub id is pinned to the commit that its revision means now.

    Raises:
        UserError: nothing is there, or `revision` was given for a folder.
        EnvironmentFailed: the Hub cannot be reached and its cache does not know the id.
    """
    if options.path is None:
        raise UserError(f"model.path is missing. {_known_forms()}")
    path, gguf_file = options.path, options.gguf_file
    if path.endswith(".gguf") and gguf_file is None:
        path, gguf_file = str(Path(path).parent), Path(path).name
    place = source_folder(path, option)
    if not Path(place).is_dir():
        return Source(place, _commit(place, options.revision, option), gguf_file)
    if options.revision is not None:
        raise UserError(f"model.revision: {options.path} is a folder, and only a Hub id has revisions; remove it.")
    if gguf_file is not None and not (Path(place) / gguf_file).is_file():
        known = sorted(file.name for file in Path(place).glob("*.gguf"))
        raise UserError(f"model.gguf_file: there is no {gguf_file} in {path}.{did_you_mean(gguf_file, known)}")
    return Source(place, None, gguf_file)


def same_weights(one: ModelOptions, other: ModelOptions) -> bool:
    """Say whether two sections mean the same weights: one place and commit, or folders of equal bytes."""
    here, there = locate(one), locate(other)
    if here == there:
        return True
    if here.folder is None or there.folder is None:
        return False
    if here.folder.resolve() == there.folder.resolve():
        return here.gguf_file == there.gguf_file
    return _digests(here) == _digests(there)


def _digests(source: Source) -> list[str]:
    assert source.folder is not None
    files = [source.folder / source.gguf_file] if source.gguf_file else sorted(source.folder.glob("*.safetensors"))
    found = []
    for file in files:
        with file.open("rb") as stream:
            found.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return found


def check_weights(source: Source, options: ModelOptions) -> None:
    """Refuse, before anything is loaded, weights that are pickled, missing, or not the expected bytes."""
    folder, name = source.folder, source.gguf_file or "model.safetensors"
    if folder is not None and source.gguf_file is None and not any(folder.glob("*.safetensors")):
        raise UserError(_no_safetensors(folder, options))
    if folder is not None and source.gguf_file is None:
        weight_files(folder, f"model.path: {options.path}")
    if options.sha256 is None:
        return
    file = folder / name if folder is not None else _download(source, name)
    if not file.is_file():
        raise UserError(f"model.sha256: {options.path} has no single file {name} to compare with; remove it.")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != options.sha256.lower():
        raise UserError(
            f"model.sha256: {name} of {options.path} has sha256 {digest}, the recipe expects {options.sha256}; "
            "the file is damaged or another one: fetch it again, or correct the recipe."
        )


def _package_folder(path: str, option: str) -> str:
    name, _, inside = path.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier() or not inside.strip("/") or ".." in PurePosixPath(inside).parts:
        raise UserError(f"{option}: {path!r} should read package://NAME/FOLDER, NAME as in `import NAME`.")
    try:
        spec = find_spec(name)  # of a top-level name: looks, does not import
    except ValueError:  # __main__ and other modules that come from no file
        spec = None
    if spec is None:
        wheel = name.replace("_", "-")
        raise UserError(f"{option}: {path} needs the Python package {name}, not installed here: pip install {wheel}")
    roots = [Path(root) for root in spec.submodule_search_locations or []]
    for root in roots:
        if (root / inside).is_dir():
            return str(root / inside)
    folders = sorted(child.name for root in roots for child in root.iterdir() if child.is_dir() and _named(child))
    known = f" Folders there: {', '.join(folders)}." if folders else " It holds no folders."
    raise UserError(f"{option}: the package {name} has no folder {inside}.{did_you_mean(inside, folders)}{known}")


def _named(folder: Path) -> bool:
    return not folder.name.startswith(("_", "."))


def _looks_like_a_path(path: str) -> bool:
    return path.startswith((".", "/", "~")) or path.endswith("/") or path.count("/") > 1 or "\\" in path


def _nearest_folder(folder: Path) -> str:
    parent = folder.parent
    names = [child.name for child in parent.iterdir() if child.is_dir()] if parent.is_dir() else []
    hint = did_you_mean(folder.name, names)
    if not hint or parent == Path("."):
        return hint
    return hint.replace("Did you mean ", f"Did you mean {parent}/")


def _known_forms() -> str:
    return "Known forms: a folder, a Hub id (owner/name), package://NAME/FOLDER, a .gguf file."


def _commit(place: str, revision: str | None, option: str) -> str:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )

    hint = _nearest_folder(Path(place))
    try:
        found = HfApi().resolve_revision(place, revision=revision, local_files_only=constants.HF_HUB_OFFLINE)
    except GatedRepoError as error:
        raise UserError(
            f"{option}: {place} is gated: ask for access on its page, then set HF_TOKEN or run `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{option}: the Hub has no model {place}, or it is private and HF_TOKEN has no access to it.{hint}"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"model.revision: {place} on the Hub has no revision {revision!r}.") from error
    except (RevisionResolutionError, OSError) as error:
        raise EnvironmentFailed(
            f"{option}: {place} is no folder here, the Hub cannot be reached and its cache lacks it.{hint} "
            "Check the name and the network, or give a folder."
        ) from error
    return found.resolved


def _download(source: Source, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source.place, name, revision=source.commit))


def _no_safetensors(folder: Path, options: ModelOptions) -> str:
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    ggufs = sorted(file.name for file in folder.glob("*.gguf"))
    if ggufs:
        return f"model.path: {options.path} holds no model.safetensors; for its GGUF file set gguf_file: {ggufs[0]}"
    if pickles:
        return (
            f"model.path: {options.path} holds its weights only as a pickle ({pickles[0]}), which can run code when "
            "read; if you trust it, convert it once: AutoModel.from_pretrained(FOLDER, use_safetensors=False)"
            ".save_pretrained(NEW_FOLDER), with the Auto class of its head."
        )
    return (
        f"model.path: {options.path} holds no model.safetensors; it has {', '.join(_contents(folder)) or 'no files'}."
    )


def _contents(folder: Path) -> list[str]:
    names = sorted(child.name for child in folder.iterdir())
    return names[:6] + (["…"] if len(names) > 6 else [])
