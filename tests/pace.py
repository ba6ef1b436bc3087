"""How much slower this machine is just now than an idle core: what limits of processor time are multiplied by."""

from __future__ import annotations

import json
import time

ROWS = json.dumps(
    [{"text": f"a fine film of {year}", "label": year % 2, "more": [year, None]} for year in range(20_000)]
)
IDLE = 0.05  # seconds of processor time that a pass takes on an idle core of the machine that the limits are of


def slowness() -> float:
    """Return by how many times a pass of plain Python takes longer than on that core; at least 1.

    What else runs takes the caches and half of a hyper-threaded core: the same work then costs more processor time.
    """
    started = time.process_time()
    for _ in range(4):
        json.loads(ROWS)
    return max(1.0, (time.process_time() - started) / IDLE)
