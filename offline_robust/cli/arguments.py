"""Numbers on the command line, read as everywhere (`numerals`): ``--seed 010`` is refused as ``--set seed=010`` is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from offline_robust.numerals import decimal, whole

MOST = 2**63 - 1
"""The largest seed."""


def counted(low: int, help: str) -> Any:
    """An option that is a whole number from ``low`` to `MOST`."""

    def read(given: object) -> int:
        value = int(_read(given, whole))
        if not low <= value <= MOST:
            raise typer.BadParameter(f"{str(given)[:40]} is not {f'at least {low}' if value < low else 'below 2**63'}")
        return value

    return typer.Option(parser=read, metavar="N", help=help)


def measured(help: str) -> Any:
    """An option that is any finite number."""
    return typer.Option(parser=lambda given: _read(given, decimal), metavar="X", help=help)


def _read(given: object, reader: Callable[[str], float]) -> float:
    try:
        return reader(str(given))  # Typer passes defaults through here too
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None
