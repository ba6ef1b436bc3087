"""What the Hub holds: accounts, repositories, commits, branches, tags and LFS objects, all in memory."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path

from hub_server.faults import Fault

LARGE = (
    ".safetensors",
    ".parquet",
    ".arrow",
    ".png",
    ".onnx",
    ".bin",
)  # kept with LFS, as a new repository's rules say


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str = "", message: str = "", **body: object) -> None:
        self.status, self.code, self.message, self.body = status, code, message, body


@dataclass(frozen=True)
class Account:
    """Who a token belongs to, and what it may do."""

    name: str
    role: str  # read, write or fineGrained
    organisations: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()  # namespaces that a fine-grained token may write to

    def may_write(self, namespace: str) -> bool:
        own = namespace in (self.name, *self.organisations)
        return own and (self.role == "write" or (self.role == "fineGrained" and namespace in self.writes))


@dataclass(frozen=True)
class Blob:
    """One version of a file."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """Return git's name of the file: for LFS that of the pointer, which stands for it in git."""
        held = self.content
        if self.lfs:
            held = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(held)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """A whole state of a repository."""

    files: dict[str, Blob]
    parent: str | None
    title: str

    @property
    def oid(self) -> str:
        text = repr((sorted((path, blob.oid) for path, blob in self.files.items()), self.parent, self.title))
        return hashlib.sha1(text.encode()).hexdigest()


@dataclass
class Repo:
    """A repository: its commits, and what branches and tags mean."""

    id: str
    kind: str  # model, dataset or space
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add("main", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)}, "initial commit")

    def add(self, branch: str, files: dict[str, Blob], title: str) -> str:
        commit = Commit(files, self.branches.get(branch), title)
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit.oid

    def resolve(self, revision: str) -> str:
        found = self.branches.get(revision) or self.tags.get(revision)
        if found is None and revision in self.commits:
            found = revision
        if found is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Return the content of every file of a revision, .gitattributes aside."""
        held = self.commits[self.resolve(revision)].files
        return {path: blob.content for path, blob in held.items() if path != ".gitattributes"}


@dataclass
class Store:
    """The whole Hub."""

    accounts: dict[str, Account]  # by token
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)  # by kind and id
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS objects by sha256
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, status
    received: list[bytes] = field(default_factory=list)  # the body of every request
    tokens: set[str] = field(default_factory=set)  # that came with requests, "" for none
    gated: set[str] = field(default_factory=set)  # ids that nobody has access to yet
    address: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fail(self, kind: str, times: int = 1, **where: object) -> Fault:
        """Let the next `times` requests that match go wrong: see Fault."""
        fault = Fault(kind, times, **where)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def create(self, repo_id: str, kind: str = "model", private: bool = False) -> Repo:
        """Make a repository, or refuse as the Hub does."""
        if (kind, repo_id) in self.repos:
            raise Refused(409, "", "You already created this repo", url=f"{self.address}/{repo_id}")
        self.repos[kind, repo_id] = Repo(repo_id, kind, private)
        return self.repos[kind, repo_id]

    def upload(self, repo_id: str, folder: Path, kind: str = "model", private: bool = False) -> Repo:
        """Put a folder into a new repository, past the protocol: what somebody else published before."""
        repo = self.create(repo_id, kind, private)
        files = {
            str(path.relative_to(folder)): Blob(path.read_bytes(), path.suffix in LARGE)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        repo.add("main", repo.commits[repo.branches["main"]].files | files, "upload")
        return repo

    def repo(self, repo_id: str, kind: str, account: Account | None) -> Repo:
        """Return a repository that the account may read; for others it does not exist."""
        found = self.repos.get((kind, repo_id))
        if found is None or (found.private and not self._belongs(found, account)):
            raise Refused(404 if account else 401, "RepoNotFound", "Repository not found")
        if repo_id in self.gated:
            raise Refused(403, "GatedRepo", f"Access to model {repo_id} is restricted")
        return found

    def writable(self, repo_id: str, kind: str, account: Account | None) -> Repo:
        """Return a repository that the account may write to."""
        found = self.repo(repo_id, kind, account)
        if account is None or not account.may_write(repo_id.split("/")[0]):
            raise Refused(403, "", "You don't have the required permissions to write to this repo")
        return found

    @staticmethod
    def _belongs(repo: Repo, account: Account | None) -> bool:
        return account is not None and repo.id.split("/")[0] in (account.name, *account.organisations)
