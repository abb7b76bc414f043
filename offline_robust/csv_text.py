"""CSV that a spreadsheet shows and does not run: names that look like formulas are written behind an apostrophe.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break for a formula, whoever
wrote it, and names of runs and learners come from anyone. What `escaped` writes `plain` reads back exactly; numbers,
and levels joined by semicolons, are written as they are.
"""

from __future__ import annotations

import csv
import re
from typing import Any, Literal

import pandas as pd

_BEGINS = r"[=+\-@\t\r\n＝＋－＠]"
_FORMULA = re.compile(rf"'*{_BEGINS}")
_ESCAPED = re.compile(rf"'+{_BEGINS}")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?:;{_NUMBER})*|[+-]inf", re.ASCII)


def escaped(text: str) -> str:
    """The text as a cell: with an apostrophe in front where a spreadsheet would run it."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBERS.fullmatch(text) else text


def plain(cell: str) -> str:
    """The text of a cell that `escaped` made, or that was never escaped."""
    return cell[1:] if _ESCAPED.match(cell) else cell


def csv_of(table: pd.DataFrame) -> str:
    """A table as CSV, its texts and the names of its columns escaped; a line of heads, then the rows."""
    columns: dict[str, Any] = {}
    broken = False
    for name, values in table.items():
        head = escaped(str(name))
        if pd.api.types.is_numeric_dtype(values):
            columns[head] = values
            continue
        cells = [escaped(value) if isinstance(value, str) else value for value in values]
        broken |= any(isinstance(cell, str) and "\r" in cell for cell in cells)
        columns[head] = pd.Series(cells, values.index, object)
    # Python's writer leaves a lone carriage return bare, which every reader takes for the end of a line.
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL
    return str(pd.DataFrame(columns).to_csv(index=False, lineterminator="\n", quoting=quoting))
