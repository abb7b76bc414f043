"""A progress bar on standard error, silent when that is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from offline_robust.cli.output import Progress, TaskID, bars


class Bar:
    """Receives the progress of training and evaluation."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def training(self, phase: str, done: int, total: int, rate: float) -> None:
        """(phase, updates done, in all, updates a second)."""
        self._update("training", done, total, f"{phase} {rate:,.0f} updates/s")

    def evaluation(self, run: str, done: int, total: int, now: str = "") -> None:
        """(run, conditions done, in all, what runs next or how many were there already)."""
        self._update(run, done, total, f"evaluate {run}{': ' if now else ''}{now}")

    def _update(self, key: str, done: int, total: int, text: str) -> None:
        if self._bar is None:
            return
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(text, total=total)
        self._bar.update(self._tasks[key], completed=done, description=text)


@contextmanager
def progress_bar(silent: bool) -> Iterator[Bar]:
    """A bar while the block runs; nothing at all when silent or when standard error is not a terminal."""
    if silent or not sys.stderr.isatty():
        yield Bar(None)
        return
    with bars() as bar:
        yield Bar(bar)
