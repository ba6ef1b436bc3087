"""The base on the Hub: which repository and commit an adapter belongs to, and whether its weights are those."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import UserError
from finetune.publishing.options import NOT_ON_THE_HUB, PublishOptions

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from finetune.loading import ModelOptions


@dataclass(frozen=True)
class Base:
    """What a run was trained from."""

    id: str | None  # on the Hub; None: it has no id there
    commit: str | None = None


def find_base(
    model: ModelOptions, publish: PublishOptions, adapter: bool, trained_on: str | None, api: HfApi
) -> Base | None:
    """Return the base of a run, None for one that was trained from scratch.

    Args:
        model: the recipe's section.
        publish: the recipe's section; it must name the base where `model.path` is local.
        adapter: without the right base the run is worth nothing.
        trained_on: the commit that training resolved, for a base that came from the Hub.
        api: of the Hub.

    Raises:
        UserError: the base is not named, is not on the Hub, or has other weights there.
    """
    if model.path is None:
        return None
    local = _local(model.path)
    if local is None:
        return Base(model.path, trained_on or _sha(model.path, model.revision, "model.path", api))
    if publish.base_model == NOT_ON_THE_HUB:
        if adapter:
            raise UserError("publish.base_model is none, and an adapter is worth nothing without its base: name it.")
        return Base(None)
    if publish.base_model is None:
        raise UserError(
            f"publish.base_model is missing: model.path is {model.path}, which nobody else has. Name the base's Hub id"
            + ("." if adapter else ", or none.")
        )
    commit = _sha(publish.base_model, publish.base_revision, "publish.base_model", api)
    _compare(local, publish.base_model, commit, api)
    return Base(publish.base_model, commit)


def named_base(model: ModelOptions, publish: PublishOptions) -> Base | None:
    """Return the base as the recipe names it, without asking the Hub; None for a run from scratch."""
    if model.path is None:
        return None
    if _local(model.path) is None:
        return Base(model.path, model.revision)
    known = publish.base_model is not None and publish.base_model != NOT_ON_THE_HUB
    return Base(publish.base_model, publish.base_revision) if known else Base(None)


def _local(path: str) -> Path | None:
    """Return the folder or GGUF file that a recipe's `model.path` means, None for a Hub id."""
    from finetune.loading import source_folder

    if path.endswith(".gguf"):
        return Path(path).parent
    place = Path(source_folder(path))
    return place if place.is_dir() else None


def _sha(repo: str, revision: str | None, option: str, api: HfApi) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        found = api.repo_info(repo, revision=revision).sha
    except GatedRepoError:
        raise UserError(f"{option}: {repo} is gated; ask for access on its page.") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{option}: the Hub has no model {repo}, or it is private and the token has no access."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{option}: {repo} has no revision {revision!r} on the Hub.") from None
    assert found is not None  # the Hub always says it
    return found


def _compare(folder: Path, repo: str, commit: str, api: HfApi) -> None:
    """Refuse a base whose safetensors files have other bytes on the Hub; a file that only one has proves nothing."""
    siblings = api.model_info(repo, revision=commit, files_metadata=True).siblings or []
    there = {each.rfilename: each.lfs.sha256 for each in siblings if each.lfs is not None}
    for file in sorted(folder.glob("*.safetensors")):
        if file.name not in there:
            continue
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != there[file.name]:
            raise UserError(
                f"publish.base_model: {file.name} of {repo} at {commit[:12]} has sha256 {there[file.name][:12]}…, "
                f"that of model.path {digest[:12]}…: another base. Name the one that was trained on."
            )
