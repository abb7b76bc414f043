"""Small sweeps of the bundled pendulum data, and an engine without processes, shared by the tests of sweeps."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from toys import SMALL

from offline_robust.locks import writing
from offline_robust.sweeps import worker
from offline_robust.sweeps.engines import Event, Load

SUITE = {"name": "two-lengths", "sweeps": [{"parameter": "length", "mode": "scale", "levels": [0.8, 1.0]}]}


def base(**training: Any) -> dict[str, Any]:
    """A SAC run of a second."""
    return {
        "dataset": "pendulum-td3",
        "env": "Pendulum-v1",
        "learner": {"name": "sac", **SMALL},
        "training": {"steps": 40, "log_every": 10, "checkpoint_every": 10, "batch_size": 32} | training,
    }


def write_sweep(folder: Path, **values: Any) -> Path:
    """A sweep file of two learning rates, evaluated at two lengths; ``values`` replace its keys."""
    suite = folder / "suite.yaml"
    suite.write_text(yaml.safe_dump(SUITE))
    content = {
        "base": base(),
        "grid": {"learner.tau": [0.005, 0.01]},
        "evaluation": {"suite": str(suite), "episodes": 1},
    } | values
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


def in_process(folders: Sequence[Path], load: Load) -> Iterator[list[Event]]:
    """An engine that computes the very same cells one after the other in this process."""
    for folder in folders:
        yield [(folder, None)]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = worker.logged_cell(folder)
        (folder / worker.LOG).write_text(said.getvalue())
        yield [(folder, status)]


@contextlib.contextmanager
def written_elsewhere(folder: Path) -> Iterator[None]:
    """Another thread writes into the folder; to its lock that is as another process."""
    begun, done = threading.Event(), threading.Event()

    def write() -> None:
        with writing(folder):
            begun.set()
            done.wait()

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: when it was written, and what it holds."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
