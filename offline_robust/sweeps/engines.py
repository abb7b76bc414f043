"""Where the runs of a sweep are computed: in processes of this machine, or as tasks of a Ray cluster.

An engine is a generator over prepared folders. It yields what has happened since last time and is closed to stop: it
then ends what it has started before it returns.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offline_robust.environment import imported
from offline_robust.errors import ConfigError, MissingExtra, nearest
from offline_robust.sweeps.worker import LOG, into_log

Event = tuple[Path, int | None]
"""(folder, None) when its run has started, (folder, exit status) when it has ended."""


@dataclass(frozen=True)
class Load:
    """What an engine may use: runs at once, and what each of them needs."""

    at_once: int
    threads: int = 1
    gpus: int = 0


Engine = Callable[[Sequence[Path], Load], Generator[list[Event]]]
"""Yields what happened to the runs in these folders, an empty list now and then."""

_ROOT = Path(__file__).parents[2]
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver ends its cells
sys.path.append(sys.argv.pop(1))  # this very package, found last
from offline_robust.sweeps.worker import main
main()
"""
_SAFE = "PYTHONSAFEPATH"
"""As the option -P: nothing is imported from the current folder, neither by a run nor by what it starts in its turn."""
_TICK = 0.2
_GRACE = 10.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def engine(name: str) -> Engine:
    """The engine of that name, ``local`` or ``ray``.

    Raises:
        ConfigError: no such engine.
        MissingExtra: Ray is not installed.
    """
    engines: dict[str, Engine] = {"local": run_local, "ray": run_ray}
    if name not in engines:
        raise ConfigError(f"--engine {name[:80]}: unknown engine{nearest(name[:80], engines)}")
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "ray", "--engine ray")
    return engines[name]


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def elsewhere() -> bool:
    """Whether Ray is to work on a cluster that is there already."""
    return bool(os.environ.get("RAY_ADDRESS"))


def run_local(folders: Sequence[Path], load: Load) -> Generator[list[Event]]:
    """One process per folder."""
    waiting = list(folders)
    running: dict[Path, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            events: list[Event] = []
            for folder in [folder for folder, process in running.items() if process.poll() is not None]:
                process = running.pop(folder)
                _let_go(process)
                events.append((folder, process.returncode))
            while waiting and len(running) < load.at_once:
                folder = waiting.pop(0)
                running[folder] = _start(folder, load.threads)
                events.append((folder, None))
            yield events
            if not events:
                time.sleep(_TICK)
    finally:
        _stop(list(running.values()))


def run_ray(folders: Sequence[Path], load: Load) -> Generator[list[Event]]:
    """One Ray task per folder, on the cluster that ``RAY_ADDRESS`` names, else on one started here.

    The folders must lie where every machine of the cluster sees them.
    """
    ray: Any = importlib.import_module("ray")
    started_here = not ray.is_initialized()
    if started_here:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        here = {} if elsewhere() else {"num_cpus": load.at_once * load.threads, "include_dashboard": False}
        _init_ray(ray, log_to_driver=False, configure_logging=False, **here)
    # A fresh process for each run: nothing that one leaves behind reaches the next. Ray gives it as many threads as
    # CPUs are asked for.
    task = ray.remote(num_cpus=load.threads, num_gpus=load.gpus, max_calls=1, max_retries=0)(into_log)
    waiting = list(folders)
    running: dict[Any, Path] = {}
    try:
        while waiting or running:
            events: list[Event] = []
            while waiting and len(running) < load.at_once:
                folder = waiting.pop(0)
                running[task.remote(str(folder), os.getcwd(), imported())] = folder
                events.append((folder, None))
            ended, _ = ray.wait(list(running), timeout=_TICK)
            events += [(running.pop(reference), _status(ray, reference)) for reference in ended]
            yield events
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started_here:
            ray.shutdown()


def _init_ray(ray: Any, **options: Any) -> None:
    """Starts or joins Ray so that its workers import nothing from the current folder, and this process hears signals.

    Ray puts the folder that it is started in first on the path of every worker, and takes SIGTERM for itself.
    """
    before, safe = signal.getsignal(signal.SIGTERM), os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        with contextlib.chdir(Path.cwd().anchor):
            ray.init(**options)
    finally:
        if safe is None:
            del os.environ[_SAFE]
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, before)


def _status(ray: Any, reference: Any) -> int:
    try:
        return int(ray.get(reference))
    except ray.exceptions.RayError:  # the worker or its machine died
        return 1


def _start(folder: Path, threads: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    environment |= {"PYTHONUNBUFFERED": "1", _SAFE: "1"}
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, str(_ROOT), str(folder), *imported()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends processes; they may be ended at any moment, so there is nothing to wait for but the system."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + _GRACE
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _let_go(process)


def _let_go(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
