"""Files as they are fetched: small ones at once, those of LFS from another host, each in parts if asked."""

from __future__ import annotations

import json
import re

from hub_server.messages import Answer, Request
from hub_server.store import Refused, Repo, Store


def download(store: Store, request: Request, kinds: str, id: str, revision: str, path: str) -> Answer:
    repo: Repo = store.repo(id, kinds.rstrip("s/") or "model", request.account)
    oid = repo.resolve(revision)
    blob = repo.commits[oid].files.get(path)
    headers = {"X-Repo-Commit": oid}
    if blob is None:
        content = json.dumps({"error": "Entry not found"}).encode()
        return Answer(404, content, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
    headers |= {"ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
    if not blob.lfs:
        return _ranged(blob.content, request, headers)
    linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
    store.objects.setdefault(blob.sha256, blob.content)
    elsewhere = store.address.replace(
        "127.0.0.1", "localhost"
    )  # another host, as the Hub's: clients tell the two apart
    return Answer(302, b"", {**headers, **linked, "Location": f"{elsewhere}/cdn/{blob.sha256}"})


def cdn(store: Store, request: Request, oid: str) -> Answer:
    return _ranged(store.objects[oid], request, {"ETag": f'"{oid}"'})


def _ranged(content: bytes, request: Request, headers: dict[str, str]) -> Answer:
    """Return the bytes that were asked for; a HEAD says how many there are."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", "") or "")
    if asked is None:
        return Answer(200, content, headers)
    first, last = int(asked[1]), int(asked[2] or len(content) - 1)
    if first >= len(content):
        raise Refused(416, "", "no such range")
    part = content[first : last + 1]
    return Answer(206, part, {**headers, "Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}"})
