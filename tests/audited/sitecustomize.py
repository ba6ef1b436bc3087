"""What every Python process of the tests writes down: each class that is looked up because a pickle asks for it.

Python imports a module of this name by itself where it finds one; tests/conftest.py puts this folder on the path of all
processes that tests start. A line of the file that UNPICKLED names is: module, class, and the frames that asked.
"""

from __future__ import annotations

import os
import sys
from typing import Any

VARIABLE = "FINETUNE_TESTS_UNPICKLED"

# Who may unpickle, by a part of the caller's path, and why that cannot be helped.
ALLOWED = {
    "/multiprocessing/": "what a process of ours hands to another of ours through a pipe: how Python starts workers",
    "/multiprocess/": "the same, of datasets' worker processes (map with num_proc)",
    "/deepspeed/runtime/checkpoint_engine/torch_checkpoint_engine.py:load": (
        "DeepSpeed's own state, in a checkpoint of this very run whose manifest verified; it knows no other format"
    ),
    "/torch/distributed/checkpoint/": "the same of FSDP: the list of its shards",
    "/torch/distributed/distributed_c10d.py": "what one rank of a launch hands to the others (broadcast of objects)",
}
MODULES = ("pickle.py", "/dill/", "/_dill.py", "/torch/serialization.py")  # do the looking up for somebody else


def callers(depth: int) -> list[str]:
    """Return "path:function" of the frames that asked, the nearest first."""
    frame: Any = sys._getframe(depth)
    found: list[str] = []
    while frame is not None and len(found) < 12:
        found.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        frame = frame.f_back
    return found


def _write_down(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "pickle.find_class":
        return
    place = os.environ.get(VARIABLE)
    asked = [each for each in callers(2) if not any(name in each for name in MODULES)]
    if place is None or (asked and any(part in asked[0] for part in ALLOWED)):
        return
    with open(place, "a", encoding="utf-8") as stream:
        stream.write(f"{arguments[0]}.{arguments[1]} for {' < '.join(asked[:8]) or 'nobody'}\n")


if os.environ.get(VARIABLE) and not hasattr(sys, VARIABLE):  # a hook stays for good, and one is enough
    setattr(sys, VARIABLE, True)
    sys.addaudithook(_write_down)
