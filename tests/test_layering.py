"""The house's own rules: imports run downhill, files stay short, nothing executes what it reads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the top down: a module imports from its own line and those below.
LAYERS = (
    ("__main__", "cli", "command_line", "endings", "usage", "verbs"),
    (
        "agreement",
        "auditing",
        "compressing",
        "deriving",
        "difference",
        "drafting",
        "drawing",
        "ensembles",
        "exporting",
        "launching",
        "machine",
        "merging",
        "novelty",
        "opening",
        "preparation",
        "publication",
        "published",
        "recording",
        "reloading",
        "rescoring",
        "reuse",
        "rewriting",
        "run",
        "seeds",
        "selftest",
        "showing",
        "soups",
        "sweeping",
        "taught",
        "writing",
    ),
    (
        "publishing",
        "recipe",
        "recipe_checks",
        "recipe_names",
        "recipe_reading",
        "recipe_writing",
        "schema",
        "schema_types",
    ),
    ("tasks",),
    ("adapters", "data", "evaluation", "loading", "objectives", "training"),
    ("artefact", "editing", "environment", "foreign"),
    ("models",),
    ("task",),
    ("errors", "found", "sparing"),
)
ROOMS = LAYERS[4]  # do not know each other
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
LIGHT = ("cli", "recipe", "schema", "adapters", "loading", "data.options", "evaluation.options")
LIGHT += ("publishing.options", "tasks.causal_lm")
HEAVY = ("accelerate", "datasets", "matplotlib", "pandas", "peft", "pyarrow", "sklearn", "torch", "transformers")
VAGUE = {"base", "common", "core", "factory", "helper", "helpers", "manager", "misc", "util", "utils"}
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
TEXTS = {".cfg", ".ini", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "finetune").rglob("*.py"))}
SCRIPTS = {module_name(path): path for path in sorted((ROOT / "scripts").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in {**MODULES, **SCRIPTS}.items()}


def room(module: str) -> str:
    """Return "tasks" for finetune.tasks.causal_lm, "" for the package itself."""
    return [*module.split("."), ""][1]


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs: everything, function bodies too, but `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield other
                yield from running(other)
            continue
        yield node
        yield from running(node)


def imports(module: str) -> set[str]:
    """Return the modules of this package that one imports, wherever in its text."""
    found = set()
    for node in running(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name in MODULES} - {module}


def test_every_module_has_its_place_in_the_layers():
    unplaced = {name for name in MODULES if room(name) and room(name) not in RANK}

    assert not unplaced, f"give these a line in LAYERS: {sorted(unplaced)}"


def test_no_import_runs_uphill_or_into_a_neighbour():
    wrong = []
    for module in MODULES:
        here = room(module)
        for other in imports(module):
            there = room(other)
            if not here or not there or here == there:
                continue
            if RANK[there] < RANK[here] or {here, there} <= set(ROOMS):
                wrong.append(f"{module} imports {other}")

    assert not wrong, "\n".join(sorted(wrong))


def test_the_import_graph_has_no_cycle():
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()  # raises CycleError, naming the cycle


def test_scripts_import_the_command_alone():
    for script in SCRIPTS:
        assert imports(script) <= {"finetune.cli"}, script


def test_a_recipe_can_be_refused_without_the_heavy_libraries():
    code = f"""
import sys
for name in {LIGHT!r}:
    __import__("finetune." + name)
    heavy = sorted(set({HEAVY!r}) & set(sys.modules))
    assert not heavy, f"finetune.{{name}} imports {{heavy}}"
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("finetune/**/*.py")) + sorted(ROOT.glob("tests/**/*.py")), ids=lambda path: path.name
)
def test_no_file_is_longer_than_300_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_no_module_has_a_name_that_says_nothing():
    assert not [name for name in MODULES if VAGUE & set(re.split(r"[._]", name.removeprefix("finetune")))]


def executes(node: ast.AST) -> str | None:
    """Return what makes this node run or unpickle what it reads, None for a harmless one."""
    if isinstance(node, ast.Import) and (names := {alias.name.split(".")[0] for alias in node.names} & PICKLES):
        return f"import {names}"
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
        return f"from {node.module}"
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    if called in {"eval", "exec", "torch.load", "torch.save"}:
        return called
    given = {word.arg for word in node.keywords if isinstance(word.value, ast.Constant) and word.value.value is True}
    return next(iter(given & {"trust_remote_code", "allow_pickle"}), None)


def test_nothing_executes_or_unpickles_what_it_reads():
    found = [
        f"{module}:{getattr(node, 'lineno', '?')}: {what}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if (what := executes(node))
    ]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "eval(x)", "torch.load(f)", "f(trust_remote_code=True)"],
)
def test_the_rule_against_execution_sees_what_it_forbids(code):
    assert any(executes(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize("code", ["model.eval()", "f(trust_remote_code=False)", "f(trust_remote_code=options.x)"])
def test_the_rule_against_execution_lets_the_harmless_pass(code):
    assert not any(executes(node) for node in ast.walk(ast.parse(code)))


def test_the_repository_names_no_path_of_the_machine_it_was_written_on():
    folders = ("finetune", "scripts", "tests", "accelerate_configs", "recipes", "docs", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += [*ROOT.glob("*"), *(ROOT / ".ci").glob("*")]  # .ci/venv is none of ours
    machine = re.compile(r"(?<![\w.])/(?:" + "|".join(["work", "root", "opt/pypi", "home/[a-z]+"]) + r")/")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files
        if path.is_file() and (path.suffix in TEXTS or path.name == "run") and "data" not in path.parts[-3:-1]
        for match in machine.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]

    assert not found, "\n".join(found)
