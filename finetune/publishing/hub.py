"""What is asked of the Hub: may this token write there, and one commit that is whole or not there at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import EnvironmentFailed, UserError, did_you_mean
from finetune.publishing.files import Upload, is_ours
from finetune.publishing.patience import SECONDS, patiently, persistently

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from finetune.publishing.options import PublishOptions

BYTES_A_SECOND = 100_000  # the slowest connection that an upload is waited for


def connect() -> HfApi:
    """Return the Hub's interface with the token of HF_TOKEN or of the login; UserError when there is none."""
    from huggingface_hub import HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise EnvironmentFailed("publish: HF_HUB_OFFLINE is set, so nothing can be published; unset it.")
    token = get_token()
    if token is None:
        raise UserError("publish: there is no token. Set HF_TOKEN, or run `hf auth login`; one that may write.")
    return HfApi(endpoint=constants.ENDPOINT, token=token)


def full_name(api: HfApi, to: str) -> str:
    """Return the repository with its owner's name, having checked that the token belongs to who may write there.

    Raises:
        UserError: the token is not valid, may only read, or its owner has nothing to do with that namespace.
        EnvironmentFailed: the Hub cannot be reached.
    """
    who = patiently(api.whoami, "publish")
    token: dict[str, Any] = who.get("auth", {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise UserError(
            f"publish: the token of {who['name']} may only read. Make one that may write "
            "(huggingface.co/settings/tokens) and put it into HF_TOKEN."
        )
    owner, _, name = to.rpartition("/")
    owner = owner or who["name"]
    known = [who["name"], *(each["name"] for each in who.get("orgs", []))]
    if owner not in known:
        raise UserError(
            f"publish.to: {owner} is neither {who['name']}, whose token this is, nor an organisation of theirs."
            f"{did_you_mean(owner, known)}"
        )
    if token.get("role") == "fineGrained" and not _may_write(token.get("fineGrained") or {}, owner, f"{owner}/{name}"):
        raise UserError(f"publish: the token of {who['name']} is fine-grained and may not write to {owner}/{name}.")
    return f"{owner}/{name}"


def _may_write(rights: dict[str, Any], owner: str, repo: str) -> bool:
    scoped = [each for each in rights.get("scoped", []) if each.get("entity", {}).get("name") in (owner, repo)]
    return any("repo.write" in each.get("permissions", []) for each in scoped)


def check_repository(api: HfApi, repo: str, private: bool, create: bool) -> None:
    """See that the repository can be written to; make it, if asked, where there is none.

    Raises:
        UserError: it is public and should be private, it cannot be made, or the token may not write to it.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    def look() -> Any:
        try:
            return api.repo_info(repo)
        except RepositoryNotFoundError:
            return None

    found = patiently(look, f"publish.to: {repo}")
    if found is None:
        if create:
            patiently(lambda: api.create_repo(repo, private=private, exist_ok=True), f"publish.to: {repo}")
        return
    if private and not found.private:
        raise UserError(
            f"publish.to: {repo} is public on the Hub, and publish.private is true; say false, or another name."
        )
    patiently(lambda: api.auth_check(repo, write=True), f"publish.to: {repo}")


def push(api: HfApi, repo: str, uploads: list[Upload], publish: PublishOptions, message: str) -> str:
    """Upload the files and make one commit of them; return the commit that the branch then has.

    What is there already is not sent again, so that a cut push goes on where it was. Files that an earlier publication
    left and this one has not are removed in the same commit; what others put there stays. A push whose answer was
    lost, and that is made again, finds nothing to do.

    Raises:
        UserError: the token is refused, or the card.
        EnvironmentFailed: it failed `publish.attempts` times.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import RevisionNotFoundError

    def once() -> str:
        try:
            head = api.model_info(repo, revision=publish.revision)
        except RevisionNotFoundError:
            api.create_branch(repo, branch=publish.revision, exist_ok=True)
            head = api.model_info(repo, revision=publish.revision)
        there = {each.rfilename for each in head.siblings or []}
        new = {each.path for each in uploads}
        operations: list[Any] = [
            CommitOperationAdd(each.path, str(each.source) if isinstance(each.source, Path) else each.source)
            for each in uploads
        ]
        operations += [CommitOperationDelete(path, is_folder=False) for path in sorted(there - new) if is_ours(path)]
        commit = api.create_commit(
            repo, operations, commit_message=message, revision=publish.revision, parent_commit=head.sha
        )
        return str(commit.oid)

    seconds = SECONDS + sum(each.size for each in uploads) / BYTES_A_SECOND
    return persistently(once, f"publish.to: {repo}", publish.attempts, seconds)


def set_tag(api: HfApi, repo: str, tag: str, commit: str, attempts: int) -> None:
    """Put a tag on a commit; UserError when another commit has it."""

    def once() -> None:
        held = {each.name: each.target_commit for each in api.list_repo_refs(repo).tags}
        if held.get(tag, commit) != commit:
            raise UserError(
                f"publish.tag: {repo} has a tag {tag} on another commit ({held[tag][:12]}); give another name."
            )
        if tag not in held:
            api.create_tag(repo, tag=tag, revision=commit)

    persistently(once, f"publish.tag: {tag}", attempts)
