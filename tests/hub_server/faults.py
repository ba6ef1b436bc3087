"""What goes wrong on request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass
class Fault:
    """The next `times` requests that match go wrong.

    kind: "status" answers with `status` and `headers`, and does nothing; "cut" reads a little of the request and closes
    the connection; "lost" does what was asked and closes the connection without an answer; "drip" answers a byte every
    `pause` seconds; "stall" reads the request and never answers.
    """

    kind: str
    times: int = 1
    method: str = ""  # any when empty
    path: str = ""  # a pattern that the path holds
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""  # "injected STATUS" when empty
    pause: float = 0.2  # seconds
    skip: int = 0  # matching requests that pass before

    def takes(self, method: str, path: str) -> bool:
        """Say whether this request goes wrong, and count it."""
        if self.times <= 0 or (self.method and self.method != method) or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True
