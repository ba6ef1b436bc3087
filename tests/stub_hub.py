"""A Hub on this machine: enough of its protocol for from_pretrained to resolve a revision and download files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ERRORS = {"gated": (403, "GatedRepo"), "missing": (401, "RepoNotFound"), "no-revision": (404, "RevisionNotFound")}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve `folder` as tiny/model, and tiny/gated, tiny/missing, tiny/no-revision as what they are called."""

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            name = [*parts, "", "", ""][3 if parts[0] == "api" else 1]
            if name in ERRORS:
                status, code = ERRORS[name]
                return self.answer(status, b"{}", {"X-Error-Code": code})
            if "tree" in parts:
                return self.answer(200, b"[]", {})
            if parts[0] == "api":
                about = {"id": "tiny/model", "sha": COMMIT, "siblings": [], "tags": [], "private": False}
                return self.answer(200, json.dumps(about).encode(), {})
            file = folder / "/".join(parts[4:])
            if not file.is_file():
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            content = file.read_bytes()
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self.answer(200, content, {"ETag": tag, "X-Repo-Commit": COMMIT})

        def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
