"""No test unpickles anything that is not on a list: an audit hook in every process, and the test fails that did it."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "audited"
VARIABLE = "FINETUNE_TESTS_UNPICKLED"


def begin() -> None:
    """Put the hook into this process and into those that it starts, which find the package on their path."""
    os.environ[VARIABLE] = str(Path(tempfile.gettempdir()) / f"unpickled-{os.getpid()}.txt")  # a file for each worker
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER), str(FOLDER.parents[1]), *([path] if path else [])])
    sys.path.append(str(FOLDER))  # for tests that make a child's path of ours
    spec = importlib.util.spec_from_file_location("audited", FOLDER / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["audited"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["audited"])


def events() -> list[str]:
    """Return what was unpickled since the last call, by this process and its children."""
    place = Path(os.environ[VARIABLE])
    found = place.read_text(encoding="utf-8").splitlines() if place.exists() else []
    place.unlink(missing_ok=True)
    return found


@pytest.fixture(autouse=True)
def nothing_is_unpickled() -> Iterator[None]:
    """Fail a test in which a pickle asked for a class, in whatever process."""
    yield
    assert not (found := events()), "unpickled: " + "\n".join(found)
