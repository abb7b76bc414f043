"""Tables that a person reads in a terminal, and that survive a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PIPED = 160
"""Columns of a table that does not go to a terminal."""


def plain_table(columns: Sequence[str], title: str | None = None) -> Table:
    """A table whose first column, the names that people copy, is never cut."""
    table = Table(*columns, title=escape(title) if title else None, box=SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    table.columns[0].min_width = 12
    return table


def wide_console() -> Console:
    """As wide as the terminal; into a file or a pipe wide enough for whole lines."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPED)
