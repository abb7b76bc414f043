"""What the command line prints: users' text as it is. No other module imports rich.

Rich reads ``[lr]`` in a string as markup and ``:smile:`` as an emoji, in lines, tables, spinners and progress bars
alike; paths, names and descriptions hold such text. What is printed here is never read: styles are given beside the
text (``style="red"``, or a `Text`), not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

__all__ = [
    "Console",
    "Progress",
    "Table",
    "TaskID",
    "Text",
    "bars",
    "err",
    "out",
    "plain_table",
    "spinner",
    "wide_console",
]

_PIPED = 160
"""Columns of a table that does not go to a terminal."""

_CONTROLS = {code: "?" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


class Console(RichConsole):
    """A console that prints every string literally, whoever asks for what: lines, titles, cells, headings."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)

    @property
    def encoding(self) -> str:
        """Of the stream that is printed to now; lines of tables are drawn in what it can hold."""
        return (getattr(self.file, "encoding", None) or "utf-8").lower()

    def render_str(self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any) -> Text:
        """The one place where rich turns a string into what it draws."""
        return Text(self.shown(text), style=style, justify=justify, overflow=overflow)

    def say(self, text: str, style: str | None = None) -> None:
        """Prints text without breaking its lines, so that a path can be copied."""
        self.print(text, style=style, soft_wrap=True)

    def shown(self, text: str) -> str:
        """The text with a ? for what would steer the terminal, and for what the stream's encoding has no bytes for.

        File names may hold both: escape sequences, and bytes that are not UTF-8.
        """
        return text.translate(_CONTROLS).encode(self.encoding, "replace").decode(self.encoding)


out, err = Console(), Console(stderr=True)


def plain_table(columns: Sequence[str], title: str | None = None) -> Table:
    """A table whose first column, the names that people copy, is never cut."""
    table = Table(*columns, title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    table.columns[0].min_width = 12
    return table


def wide_console() -> Console:
    """As wide as the terminal; into a file or a pipe wide enough for whole lines."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPED)


class _Description(ProgressColumn):
    def render(self, task: Task) -> Text:
        return err.render_str(task.description)


def bars(silent: bool = False, elapsed: bool = False) -> Progress:
    """Progress bars on standard error, with the time that each has left or taken; none where that is no terminal."""
    console = Console(stderr=True)
    time = TimeElapsedColumn() if elapsed else TimeRemainingColumn()
    columns = (_Description(), BarColumn(), MofNCompleteColumn(), time)
    return Progress(*columns, console=console, disable=silent or not console.is_terminal)


@contextmanager
def spinner(text: str, silent: bool = False) -> Iterator[None]:
    """A spinner on standard error while something of unknown length runs; silent where that is not a terminal."""
    console = Console(stderr=True)
    if silent or not console.is_terminal:
        yield
        return
    with console.status(console.render_str(text)):
        yield
