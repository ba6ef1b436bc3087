"""The guard against pickles sees them, in this process and in others; and the package's text has none."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import unpickling
import yaml

ROOT = Path(__file__).parents[1]
LOADS = re.compile(  # what reads pickles, or code, in whatever guise
    r"torch\.load\(|(?:c|cloud)?[pP]ickle\.loads?\(|^\s*(?:import|from) +(?:pickle|dill|joblib|shelve|marshal)\b"
    r"|evaluate\.load\(|weights_only\s*=\s*False|allow_pickle\s*=\s*True|yaml\.(?:unsafe_load|full_load|load)\(",
    re.MULTILINE,
)
# Where a line of ours names such a call, and why that is no call.
NAMED = {
    "finetune/foreign/files.py": "the hint how to convert a pickle",
    "finetune/evaluation/metrics/__init__.py": "says how others load our metrics",
    "finetune/recipe_reading.py": "a loader derived from yaml.SafeLoader",
}


def test_a_class_that_a_pickle_asks_for_is_seen():
    assert unpickling.events() == []
    content = pickle.dumps(Path("x"))

    pickle.loads(content)

    found = unpickling.events()
    assert len(found) == 1
    assert "Path for" in found[0]
    assert Path(__file__).name in found[0]


def test_it_is_seen_in_another_process_too():
    code = "import pickle, pathlib; pickle.loads(pickle.dumps(pathlib.Path('x')))"

    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))

    assert len(unpickling.events()) == 1


def test_each_exception_has_a_reason_and_two_of_them_read_files():
    from audited import ALLOWED

    assert all(len(reason) > 20 for reason in ALLOWED.values())
    assert [part.split("/")[1] for part in ALLOWED if "checkpoint" in part] == ["deepspeed", "torch"]


def test_no_line_of_the_package_loads_a_pickle(contract):
    files = [
        *(ROOT / "finetune").rglob("*.py"),
        *(ROOT / "scripts").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
    ]
    found = {
        file.relative_to(ROOT).as_posix(): match[0]
        for file in files
        for match in LOADS.finditer(file.read_text(encoding="utf-8"))
    }

    assert set(found) - set(NAMED) == set(), found
    contract("S1", files_searched=len(files))


@pytest.mark.parametrize(
    "text", ["torch.load(f)", "pickle.loads(x)", "import dill", "evaluate.load('f1')", "yaml.load(f)"]
)
def test_the_search_finds_what_it_is_for(text):
    assert LOADS.search(text)


def test_yaml_makes_no_objects():
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load("!!python/object/apply:os.getcwd []")


FLOORS = {
    "torch": "2.6",
    "transformers": "5.5",
    "jinja2": "3.1.6",
    "pillow": "12.2",
    "pyyaml": "5.4",
    "pyarrow": "14.0.1",
}


def test_the_declared_ranges_lie_above_known_holes():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.version import Version

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    least = {
        each.name: min(Version(part.version) for part in each.specifier if part.operator == ">=")
        for each in map(Requirement, declared)
        if each.name in FLOORS
    }

    assert least.keys() == FLOORS.keys()
    assert all(least[name] >= Version(floor) for name, floor in FLOORS.items())
