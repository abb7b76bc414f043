"""Signals, from a command's first moment on: one line, and the exit status that shells expect.

Nothing but the standard library is imported here, so that signals are heard before anything slow is.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_HINT = "a training goes on with --resume; an evaluation, a sweep or a comparison when started again"
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(BaseException):
    """A signal asks the process to end. Like KeyboardInterrupt it passes handlers of ordinary errors."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


def said(number: int) -> str:
    """What is said of a process that a signal has ended."""
    how = "stopped" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return f"{how}; {_HINT}"


@contextmanager
def heard(numbers: Sequence[int] = SIGNALS) -> Iterator[None]:
    """While the block runs a signal raises `Stopped` in it; those that the process was told to ignore stay ignored.

    A second signal ends the process at once, and so does one that comes while modules are being imported: an exception
    there is not always one when it arrives, and nothing is lost.
    """
    before: dict[int, Any] = {}
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if received or _is_importing(frame):
            _leave(number)
        received.append(number)
        raise Stopped(number)

    try:
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    except ValueError:  # not the main thread, which alone hears signals
        pass
    try:
        yield
    finally:
        if received:
            _tidy()
        # What there was to do is done: while the interpreter takes itself apart there is nothing left to stop.
        atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in before])
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _tidy() -> None:
    """What `with` and `finally` do, for a signal that came between two of their lines."""
    for module, tidy in (("files", "remove_temporaries"), ("locks", "let_go_of_all")):
        function = getattr(sys.modules.get(f"offline_robust.{module}"), tidy, None)
        if function is not None:
            function()


def _leave(number: int) -> NoReturn:
    _tidy()
    line = f"error: {said(number)}\n".encode()
    os.write(2, _SHOW_CURSOR + line if os.isatty(2) else line)
    os._exit(128 + number)
