from __future__ import annotations

import ast
import json

import contract as page
import numpy as np
import pytest


def test_the_page_is_made_of_the_figures():
    assert page.TABLE.read_text(encoding="utf-8") == page.table(page.read(page.FIGURES))


def test_every_line_has_figures_and_each_is_of_a_test_that_there_is():
    assert json.loads(page.FIGURES.read_text(encoding="utf-8")).keys() == page.LINES.keys()
    for line, tests in json.loads(page.FIGURES.read_text(encoding="utf-8")).items():
        assert line in page.LINES
        for node in tests:
            file, _, name = node.partition("::")
            tree = ast.parse((page.ROOT / file).read_text(encoding="utf-8"))
            functions = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
            assert name.rpartition("::")[2] in functions, f"{line}: {node}"


def test_counts_are_summed_over_parameters_and_files_and_the_largest_of_others_is_kept(tmp_path):
    files = [tmp_path / "default.json", tmp_path / "slow.json"]
    page.write(
        files[0],
        page.collected(
            [
                ("tests/a.py::test_x[1]", "R2", {"damaged": 2, "s": 0.5}),
                ("tests/a.py::test_x[2]", "R2", {"damaged": 3, "s": 0.1}),
                ("tests/a.py::test_y", "R1", {"kills": 1}),
            ]
        ),
    )
    page.write(files[1], page.collected([("tests/a.py::test_x[3]", "R2", {"damaged": 5, "s": 0.2})]))

    known = page.read(*files)
    assert known == {
        "R1": {"tests/a.py::test_y": {"kills": 1}},
        "R2": {"tests/a.py::test_x": {"damaged": 10, "s": 0.5}},
    }
    assert "| R2 | A checkpoint that is damaged" in page.table(known)
    assert "[x](../tests/a.py): damaged 10, s 0.5 |" in page.table(known)


def test_figures_are_of_a_known_line_and_numbers(contract):
    with pytest.raises(AssertionError, match="R99"):
        contract("R99", kills=1)
    with pytest.raises(AssertionError, match="number"):
        contract("R1", kills="many")


def test_numpys_numbers_pass_between_the_workers_as_plain_ones(request, contract):
    contract("R9", largest=np.float64(0.0))

    name, (line, figures) = request.node.user_properties.pop()  # it is no figure of the page
    assert (name, line) == ("contract", "R9")
    assert type(figures["largest"]) is float
