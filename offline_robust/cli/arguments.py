"""Numbers on the command line, read as everywhere (`numerals`): ``--seed 010`` is refused as ``--set seed=010`` is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from offline_robust import numerals

MOST = 2**63 - 1
"""The largest seed."""


def counted(low: int, help: str) -> Any:
    """An option that is a whole number from ``low`` to `MOST`."""
    return typer.Option(parser=lambda given: int(_read(given, numerals.whole, low, MOST)), metavar="N", help=help)


def measured(low: float, high: float, help: str) -> Any:
    """An option that is a number from ``low`` to ``high``."""
    return typer.Option(parser=lambda given: _read(given, numerals.decimal, low, high), metavar="X", help=help)


def _read(given: object, reader: Callable[[str], float], low: float, high: float) -> float:
    try:
        value = reader(str(given))  # Typer passes defaults through here too
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None
    if not low <= value <= high:
        wanted = f"at least {low}" if high == MOST else f"from {low} to {high}"
        raise typer.BadParameter(f"{str(given)[:40]} is not {wanted}")
    return value
