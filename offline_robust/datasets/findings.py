"""What can be wrong with a data file, in a form that both the strict loader and `data check` use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offline_robust.errors import DatasetError

FindingSeverity = Literal["error", "warning"]

ROWS_KEPT = 1_000
"""A problem lists at most this many row numbers; `Finding.count` is always complete."""


@dataclass(frozen=True)
class Finding:
    """One finding about a data source.

    An ``error`` keeps the source from loading; a ``warning`` loads, by the rule that ``mend`` or the text states.
    """

    severity: FindingSeverity
    where: str
    """File, then key or episode."""
    what: str
    """What is wrong, in words."""
    mend: str = ""
    """What to do about it."""
    rows: tuple[int, ...] = ()
    """The rows concerned, counted from 0 over the whole source (the first `ROWS_KEPT` of them)."""
    count: int = 0
    """How many rows are concerned; 0 where the finding is not about rows."""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}"
        return f"{text}; {self.mend}" if self.mend else text

    def as_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


class FileProblem(DatasetError):
    """A problem that stops the reading; carries the finding itself for `data check`."""

    def __init__(self, problem: Finding) -> None:
        super().__init__(one_line(str(problem)))
        self.problem = problem


def refusal(where: str, what: str, mend: str = "") -> FileProblem:
    """The error to raise where reading cannot go on."""
    return FileProblem(Finding("error", where, one_line(what), mend))


def raise_errors(problems: Sequence[Finding]) -> None:
    """Raises for the first error among the findings, and counts the others.

    Raises:
        DatasetError: there is at least one finding of severity ``error``.
    """
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        more = f" ({len(errors) - 1:,} more: `offline-robust data check` lists them)" if len(errors) > 1 else ""
        raise DatasetError(one_line(f"{errors[0]}{more}"))


def numbered(rows: NDArray[np.integer[Any]]) -> tuple[tuple[int, ...], int]:
    """The first row numbers as integers, and how many there are."""
    return tuple(int(row) for row in rows[:ROWS_KEPT]), len(rows)


def one_line(text: str) -> str:
    """The text with line breaks and control characters of a hostile file taken out, and cut at 2,000 characters."""
    clean = "".join(character if character.isprintable() else " " for character in text)
    return clean if len(clean) <= 2_000 else clean[:2_000] + "..."
