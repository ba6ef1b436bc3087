"""What passes between a client and the Hub."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hub_server.store import Account


@dataclass(frozen=True)
class Request:
    """What a client asks."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    account: Account | None
    headers: Any

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass
class Answer:
    """What it is told."""

    status: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)
