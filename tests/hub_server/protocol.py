"""HTTP around the store: reads requests, lets them go wrong where a fault says so, writes answers."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_server.faults import Fault
from hub_server.messages import Answer, Request
from hub_server.routes import answer
from hub_server.store import Refused, Store


def serve(store: Store) -> ThreadingHTTPServer:
    """Return a server on a free port of the loopback interface."""

    class Handler(HubHandler):
        hub = store

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server


class HubHandler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: Store

    def log_message(self, *args: object) -> None: ...

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):  # the client went away: a test of its own
            super().handle_one_request()

    def _any(self) -> None:
        with self.hub.lock:
            fault = next((each for each in self.hub.faults if each.takes(self.command, self.path)), None)
        if fault is not None and fault.kind == "cut":
            self.rfile.read(min(100, int(self.headers.get("Content-Length", 0))))
            return self._close()
        body = self._body()
        self.hub.received.append(body)
        self.hub.tokens.add(self._token())
        if fault is not None and fault.kind == "stall":
            time.sleep(fault.pause)
            return self._close()
        try:
            if fault is not None and fault.kind == "status":
                said = fault.message or f"injected {fault.status}"
                raise Refused(fault.status, message=said, error=said)
            found = answer(self.hub, self._request(body))
        except Refused as refused:
            found = _refusal(refused)
        if fault is not None and fault.kind == "status":
            found.headers.update(fault.headers)
        self.hub.requests.append((self.command, self.path, found.status))
        if fault is not None and fault.kind == "lost":
            return self._close()
        return self._write(found, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _any

    def _request(self, body: bytes) -> Request:
        parts = urlsplit(self.path)
        given = self._token()
        if given and given not in self.hub.accounts:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        return Request(self.command, unquote(parts.path), query, body, self.hub.accounts.get(given), self.headers)

    def _token(self) -> str:
        return str(self.headers.get("Authorization", "")).removeprefix("Bearer ")

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _write(self, found: Answer, fault: Fault | None) -> None:
        lines = [f"HTTP/1.1 {found.status} {'OK' if found.status < 300 else 'Refused'}"]
        lines += [f"{name}: {value}" for name, value in found.headers.items()]
        lines += [f"Content-Length: {len(found.content)}", "", ""]
        sent = "\r\n".join(lines).encode() + (b"" if self.command == "HEAD" else found.content)
        if fault is not None and fault.kind == "drip":
            for start in range(len(sent)):
                self.wfile.write(sent[start : start + 1])
                self.wfile.flush()
                time.sleep(fault.pause)
        elif fault is not None and fault.kind == "short":
            self.wfile.write(sent[: len(sent) - len(found.content) // 2])
            self._close()
        else:
            self.wfile.write(sent)

    def _close(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _refusal(refused: Refused) -> Answer:
    headers = {"Content-Type": "application/json"}
    if refused.code:
        headers["X-Error-Code"] = refused.code
    if refused.message:
        headers["X-Error-Message"] = refused.message
    body: dict[str, Any] = {"error": refused.message, **refused.body}
    return Answer(refused.status, json.dumps(body).encode(), headers)
