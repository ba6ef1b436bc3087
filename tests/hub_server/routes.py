"""The Hub's endpoints: from a request to an answer."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

from hub_server.downloads import cdn, download
from hub_server.messages import Answer, Request
from hub_server.metadata import problems
from hub_server.store import LARGE, Blob, Refused, Store

REPO = r"(?P<kind>model|dataset|space)s/(?P<id>[\w.-]+/[\w.-]+)"
NAMED = r"(?P<kinds>datasets/|spaces/|)(?P<id>[\w.-]+/[\w.-]+)"


def answer(store: Store, request: Request) -> Answer:
    """Find the endpoint and ask it; commits and the like happen one at a time."""
    for methods, pattern, endpoint in ENDPOINTS:
        match = re.fullmatch(pattern, request.path)
        if match and request.method in methods.split():
            with store.lock:
                found = endpoint(store, request, **match.groupdict())
            if isinstance(found, Answer):
                return found
            return Answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})
    raise Refused(404, "", f"no such endpoint: {request.method} {request.path}")


def whoami(store: Store, request: Request) -> dict[str, Any]:
    account = request.account
    if account is None:
        raise Refused(401, "", "Invalid credentials in Authorization header")
    token: dict[str, Any] = {"displayName": "test", "role": account.role}
    if account.role == "fineGrained":
        scoped = [{"entity": {"type": "user", "name": name}, "permissions": ["repo.write"]} for name in account.writes]
        token["fineGrained"] = {"global": [], "scoped": scoped}
    return {
        "type": "user",
        "name": account.name,
        "orgs": [{"name": name, "type": "org", "roleInOrg": "write"} for name in account.organisations],
        "auth": {"type": "access_token", "accessToken": token},
    }


def validate(store: Store, request: Request) -> Any:
    found = problems(request.json()["content"])
    if found:
        raise Refused(400, "", "Invalid metadata", errors=[{"message": each} for each in found], warnings=[])
    return {"errors": [], "warnings": []}


def create(store: Store, request: Request) -> dict[str, str]:
    given, account = request.json(), request.account
    if account is None:
        raise Refused(401, "", "Invalid credentials in Authorization header")
    namespace = given.get("organization") or account.name
    if not account.may_write(namespace):
        raise Refused(403, "", f"You don't have the rights to create a model under the namespace {namespace!r}")
    kind = given.get("type") or "model"
    repo = store.create(f"{namespace}/{given['name']}", kind, given.get("visibility") == "private")
    return {"url": f"{store.address}/{'' if kind == 'model' else kind + 's/'}{repo.id}", "name": repo.id}


def about(store: Store, request: Request, kind: str, id: str, revision: str = "main") -> dict[str, Any]:
    repo = store.repo(id, kind, request.account)
    oid = repo.resolve(revision)
    siblings = [{"rfilename": path, **_facts(blob, request)} for path, blob in repo.commits[oid].files.items()]
    return {
        "_id": id, "id": id, "modelId": id, "author": id.split("/")[0], "sha": oid, "private": repo.private,
        "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
        "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
    }  # fmt: skip


def _facts(blob: Blob, request: Request) -> dict[str, Any]:
    if request.query.get("blobs", "").lower() not in ("true", "1"):
        return {}
    lfs = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": 130}
    return {"size": len(blob.content), "blobId": blob.oid} | ({"lfs": lfs} if blob.lfs else {})


def refs(store: Store, request: Request, kind: str, id: str) -> dict[str, Any]:
    repo = store.repo(id, kind, request.account)
    listed = {
        group: [{"name": name, "ref": f"refs/{where}/{name}", "targetCommit": oid} for name, oid in held.items()]
        for group, where, held in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
    }
    return {**listed, "converts": [], "pullRequests": []}


def tree(store: Store, request: Request, kind: str, id: str, revision: str, path: str = "") -> list[dict[str, Any]]:
    repo = store.repo(id, kind, request.account)
    files = repo.commits[repo.resolve(revision)].files
    inside = f"{path.strip('/')}/" if path and path.strip("/") else ""
    found: dict[str, dict[str, Any]] = {}
    for name, blob in files.items():
        if not name.startswith(inside):
            continue
        parts = name.removeprefix(inside).split("/")
        for depth in range(1, len(parts)):
            folder = inside + "/".join(parts[:depth])
            if depth == 1 or request.query.get("recursive", "").lower() in ("true", "1"):
                found[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        if len(parts) == 1 or request.query.get("recursive", "").lower() in ("true", "1"):
            found[name] = _entry(name, blob)
    if inside and not found:
        raise Refused(404, "EntryNotFound", f"{path} does not exist on {revision}")
    return list(found.values())


def _entry(name: str, blob: Blob) -> dict[str, Any]:
    lfs = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(blob.content), "oid": blob.oid}
    return entry | ({"lfs": lfs} if blob.lfs else {})


def paths_info(store: Store, request: Request, kind: str, id: str, revision: str) -> list[dict[str, Any]]:
    repo = store.repo(id, kind, request.account)
    files = repo.commits[repo.resolve(revision)].files
    asked = request.json()["paths"] if request.body.startswith(b"{") else []
    found = [_entry(path, files[path]) for path in asked if path in files]
    folders = [path for path in asked if any(name.startswith(f"{path}/") for name in files)]
    return found + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]


def preupload(store: Store, request: Request, kind: str, id: str, revision: str) -> dict[str, Any]:
    repo = store.writable(id, kind, request.account)
    held = repo.commits[repo.resolve(revision)].files
    listed = []
    for given in request.json()["files"]:
        path = given["path"]
        mode = "lfs" if path.endswith(LARGE) or given["size"] > 10_000_000 else "regular"
        known = {"oid": held[path].etag} if path in held else {}
        listed.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
    return {"files": listed}


def lfs_batch(store: Store, request: Request, kinds: str, id: str) -> dict[str, Any]:
    store.writable(id, kinds.rstrip("s/") or "model", request.account)
    listed: list[dict[str, Any]] = []
    for given in request.json()["objects"]:
        oid = given["oid"]
        actions = {
            "upload": {"href": f"{store.address}/lfs/{oid}"},
            "verify": {"href": f"{store.address}/verify/{oid}"},
        }
        listed.append({"oid": oid, "size": given["size"]} | ({} if oid in store.objects else {"actions": actions}))
    return {"transfer": "basic", "objects": listed}


def lfs_put(store: Store, request: Request, oid: str) -> dict[str, Any]:
    if Blob(request.body, True).sha256 != oid:
        raise Refused(400, "", "the digest is another one")
    store.objects[oid] = request.body
    return {}


def lfs_verify(store: Store, request: Request, oid: str) -> dict[str, Any]:
    if len(store.objects.get(oid, b"")) != request.json()["size"]:
        raise Refused(404, "", "no such object")
    return {}


def commit(store: Store, request: Request, kind: str, id: str, revision: str) -> dict[str, Any]:
    """Take a commit whole or not at all: the branch moves last."""
    repo = store.writable(id, kind, request.account)
    if revision not in repo.branches:
        raise Refused(404, "RevisionNotFound", f"no branch {revision}")
    head = repo.branches[revision]
    files = dict(repo.commits[head].files)
    title = ""
    for line in request.body.splitlines():
        given = json.loads(line)
        key, value = given["key"], given["value"]
        if key == "header":
            title = value["summary"]
            if value.get("parentCommit") not in (None, head):
                raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
        elif key == "file":
            files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
        elif key == "lfsFile":
            if value["oid"] not in store.objects:
                raise Refused(400, "", f"{value['path']}: LFS pointer points to a file that does not exist")
            files[value["path"]] = Blob(store.objects[value["oid"]], True)
        elif key == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
        elif key == "deletedFolder":
            files = {path: blob for path, blob in files.items() if not path.startswith(f"{value['path'].rstrip('/')}/")}
    oid = repo.add(revision, files, title)
    return {"success": True, "commitOid": oid, "commitUrl": f"{store.address}/{id}/commit/{oid}", "hookOutput": ""}


def branch(store: Store, request: Request, kind: str, id: str, name: str) -> dict[str, Any]:
    repo = store.writable(id, kind, request.account)
    if name in repo.branches:
        raise Refused(409, "", f"Reference already exists: refs/heads/{name}")
    repo.branches[name] = repo.resolve(request.json().get("startingPoint") or "main")
    return {}


def tag(store: Store, request: Request, kind: str, id: str, revision: str) -> dict[str, Any]:
    repo, name = store.writable(id, kind, request.account), request.json()["tag"]
    if name in repo.tags:
        raise Refused(409, "", f"Tag reference exists already: {name}")
    repo.tags[name] = repo.resolve(revision)
    return {}


def untag(store: Store, request: Request, kind: str, id: str, revision: str) -> dict[str, Any]:
    store.writable(id, kind, request.account).tags.pop(revision)
    return {}


def may_write(store: Store, request: Request, kind: str, id: str) -> dict[str, Any]:
    store.writable(id, kind, request.account)
    return {}


REVISION = r"(?P<revision>[^/]+(?:/pr/\d+)?)"
ENDPOINTS: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", r"/api/whoami-v2", whoami),
    ("POST", r"/api/validate-yaml", validate),
    ("POST", r"/api/repos/create", create),
    ("GET", rf"/api/{REPO}", about),
    ("GET", rf"/api/{REPO}/revision/{REVISION}", about),
    ("GET", rf"/api/{REPO}/refs", refs),
    ("GET", rf"/api/{REPO}/tree/{REVISION}(?P<path>/.*)?", tree),
    ("POST", rf"/api/{REPO}/paths-info/{REVISION}", paths_info),
    ("POST", rf"/api/{REPO}/preupload/{REVISION}", preupload),
    ("POST", rf"/api/{REPO}/commit/{REVISION}", commit),
    ("POST", rf"/api/{REPO}/branch/(?P<name>.+)", branch),
    ("POST", rf"/api/{REPO}/tag/(?P<revision>.+)", tag),
    ("DELETE", rf"/api/{REPO}/tag/(?P<revision>.+)", untag),
    ("GET", rf"/api/{REPO}/auth-check/write", may_write),
    ("POST", rf"/{NAMED}\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", lfs_put),
    ("POST", r"/verify/(?P<oid>\w+)", lfs_verify),
    ("GET HEAD", rf"/{NAMED}/resolve/{REVISION}/(?P<path>.+)", download),
    ("GET HEAD", r"/cdn/(?P<oid>\w+)", cdn),
]
