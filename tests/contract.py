"""The reliability contract: what each line promises, and the table that the tests' own figures fill.

A test that proves a line asks for the fixture `contract` and hands it its figures when it is done:

    contract("R1", kills=60, inside_a_save=21)

`pytest --contract FILE` keeps what passing tests handed over. `python tests/contract.py FILE FILE …` prints the page
that several such files make together, of the default and the slow suite; with `--keep` it becomes docs/reliability.md.
Within one test function, over its parameters and the files, whole numbers are summed and others give their largest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "reliability.json"
TABLE = ROOT / "docs" / "reliability.md"

LINES = {
    "R1": "A run that is killed outright at any instant ends, by the same command, with the bits of an unbroken one.",
    "R2": "A checkpoint that is damaged in any way is passed over for the last good one, with one line.",
    "R3": "A resumed run equals an unbroken one to the bit, and sees every row exactly once an epoch.",
    "R4": "What was changed since the checkpoint is refused with the list of differences, or allowed by name.",
    "R5": "SIGTERM or SIGINT to any process saves at a step that all agree on, and ends with 143.",
    "R6": "A full disk is met before it is written to, and costs no checkpoint.",
    "R7": "The first number that is not finite stops the run before its step and names the rows.",
    "R8": "Loss, gradients and weights do not depend on how a batch is cut.",
    "R9": "No score depends on the evaluation's batch, processes or padding.",
    "R10": "As many processes come up as were asked for, or the run ends.",
    "R11": "Files have the mode that umask grants; rotation spares the best, the last and the only good checkpoint.",
    "I1": "Malformed input is refused before a model loads, with file, line, what and fix.",
    "I2": "What is legal and wrong (one class, leaks, no target) stops the run or is said.",
    "I3": "Clean input is not refused.",
    "S1": "Nothing is unpickled from a path that this process did not make, but what DeepSpeed and FSDP split over "
    "processes of the checkpoint that a run resumes from, once its manifest verifies.",
    "S2": "No foreign code runs, and foreign settings are held against bounds.",
    "S3": "An adapter loads on its own base alone.",
    "S4": "A token is in no byte of what a run leaves.",
    "S5": "What is published is an explicit list.",
    "P1": "What a model has memorised can be measured.",
    "P2": "Personal data is found by file and line before training.",
    "P3": "Private training moves the weights, and its ε is an independent accountant's.",
}
HEAD = """# What is promised, and what the tests measured

Made of the tests' own figures; do not edit. `pytest --contract default.json`, then
`pytest -m "slow or faults" --contract slow.json`, then `python tests/contract.py --keep default.json slow.json` make it
anew.

| line | promise | tests and their figures |
|---|---|---|
"""

Figures = dict[str, dict[str, Any]]  # test → {name: number}


def check(line: str, figures: dict[str, Any]) -> None:
    """Raise for a line that does not exist, and for figures that cannot be summed."""
    assert line in LINES, f"{line} is no line of the contract: {', '.join(LINES)}"
    for name, value in figures.items():
        assert isinstance(value, int | float), f"{name} is {value!r}: a figure is a number"
        assert not isinstance(value, bool), f"{name} is {value!r}: a figure is a number"


def collected(handed: list[tuple[str, str, dict[str, Any]]]) -> dict[str, Figures]:
    """Return {line: {test: figures}} of what tests handed over as (node id, line, figures)."""
    found: dict[str, Figures] = {}
    for node, line, figures in handed:
        held = found.setdefault(line, {}).setdefault(node.partition("[")[0], {})
        for name, value in figures.items():
            both = (held.get(name, 0), value)
            held[name] = sum(both) if isinstance(value, int) else max(both)
    return {line: dict(sorted(found[line].items())) for line in LINES if line in found}


def write(path: Path, figures: dict[str, Figures]) -> None:
    """Write what `collected` returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(*paths: Path) -> dict[str, Figures]:
    """Return the figures of files together."""
    held: list[dict[str, Figures]] = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return collected(
        [(node, line, figures) for each in held for line, tests in each.items() for node, figures in tests.items()]
    )


def table(known: dict[str, Figures]) -> str:
    """Return the page for figures."""
    rows = [f"| {line} | {promise} | {_cell(known.get(line, {}))} |" for line, promise in LINES.items()]
    return HEAD + "\n".join(rows) + "\n"


def _cell(tests: Figures) -> str:
    if not tests:
        return "no figures yet"
    said = []
    for node, figures in tests.items():
        file, _, name = node.partition("::")
        numbers = ", ".join(f"{each.replace('_', ' ')} {_number(value)}" for each, value in figures.items())
        said.append(
            f"[{name.removeprefix('test_').replace('_', ' ')}](../{file})" + (f": {numbers}" if numbers else "")
        )
    return "<br>".join(said)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def main(words: list[str]) -> None:
    """Print the page of some files of figures; with --keep, write figures and page into docs."""
    files = [Path(word) for word in words if word != "--keep"]
    if not files:
        sys.exit("python tests/contract.py [--keep] FILE …: files that pytest --contract FILE wrote")
    known = read(*files)
    if "--keep" in words:
        write(FIGURES, known)
        TABLE.write_text(table(known), encoding="utf-8")
    else:
        sys.stdout.write(table(known))


if __name__ == "__main__":
    main(sys.argv[1:])
