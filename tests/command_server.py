"""Commands that start at once, for campaigns: forks of a process that has imported everything by then."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

SERVER = """
import json, os, sys
import matplotlib.backends.backend_agg, minari, scipy.stats
import offline_robust.cli.commands, offline_robust.collection, offline_robust.sweeps.driver
from offline_robust.cli import main

if len(sys.argv) > 1:  # runs of sweeps without processes of their own
    sys.path.append(sys.argv[1])
    import sweep_toys
    offline_robust.sweeps.driver.engine = lambda name: sweep_toys.in_process
print("ready", flush=True)
for line in sys.stdin:
    arguments, log = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        null, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, descriptor in enumerate((null, out, out)):
            os.dup2(descriptor, number)
        sys.argv = ["offline-robust", *arguments]
        status = 99  # of a traceback
        try:
            main()
        except SystemExit as leaving:
            status = leaving.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """Runs commands, one at a time, each in a process group of its own.

    Args:
        log: takes what they print.
        processes: whether runs of a sweep have processes of their own, which take seconds to start.
    """

    def __init__(self, log: Path, processes: bool = True) -> None:
        self.log = log
        self.pid = 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER, *([] if processes else [str(Path(__file__).parent)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
        )
        assert self._line(120) == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.kill(signal.SIGKILL)
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)

    def start(self, arguments: Sequence[str]) -> None:
        """Starts ``offline-robust ARGUMENTS``."""
        assert self._server.stdin is not None
        self._server.stdin.write((json.dumps([list(arguments), str(self.log)]) + "\n").encode())
        self.pid = int(self._line(60) or 0)

    def wait(self, seconds: float) -> int | None:
        """Its exit status, or None where it has not ended by then."""
        line = self._line(seconds)
        if line is None:
            return None
        self.pid = 0
        return int(line)

    def kill(self, number: int) -> None:
        """Sends a signal to the command and all it has started."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # over, or not yet a group of its own
                os.killpg(self.pid, number)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def said(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _line(self, seconds: float) -> str | None:
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], seconds)[0]:
            return None
        return self._server.stdout.readline().decode().strip()
