"""Records of CSV files are those of the csv module, to its errors and line numbers, however they are read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.data.records import Records

PIECES = ["a", "fine film", '"', '""', ",", "\t", "\n", "\r\n", "\r", "\0", " ", "é"]


def told(reader: Any) -> Iterator[tuple[int, Any]]:
    """Yield (lines read, cells or the error) to the end."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells = str(error)
        yield reader.line_num, cells


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join), st.sampled_from(",\t"), st.booleans())
@example('"a ""well"" film","b"\nc,"d\ne"\n', ",", True)
@example('a"b,c"d\n', ",", True)
@example('"a"b,"c"\n5" disk,"x"\n"open\n', ",", True)
def test_records_are_those_of_the_csv_module(text: str, delimiter: str, quoted: bool) -> None:
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    lines = [io.StringIO(text, newline="") for _ in range(2)]

    found = list(told(Records(iter(lines[0]), delimiter, quoted)))

    assert found == list(told(csv.reader(lines[1], delimiter=delimiter, strict=True, quoting=quoting)))
