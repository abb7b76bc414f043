"""One run of a sweep in a process of its own: trained, evaluated, and marked as finished.

`engines` starts it. The folder holds ``cell.yaml``, the run's resolved configuration, and becomes an ordinary
run's folder. The process may be killed at any moment: started again it goes on, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from offline_robust.environment import import_modules
from offline_robust.errors import FULL, ConfigError, FolderInUse, UserError, readable
from offline_robust.experiments.config import RunConfig, load_config
from offline_robust.experiments.differences import first_difference
from offline_robust.files import remove_temporaries, write_json, write_text
from offline_robust.locks import writing
from offline_robust.stopping import Stopped, heard, said
from offline_robust.sweeps.grids import digest
from offline_robust.untrusted import readable_object, within

CONFIG, LOG, MARK = "cell.yaml", "log.txt", "cell.json"
_MAX_MARK = 10_000
IN_HAND = 75
"""Exit status of a cell that another process is computing."""
_STEPS_TOLD = 10


def prepare(folder: Path, config: RunConfig) -> None:
    """Writes a cell's configuration into its folder.

    Raises:
        ConfigError: the folder holds a run of another configuration.
        FolderInUse: another process has the run in hand.
    """
    with writing(folder):
        refuse_another(folder, config)
        within(folder, LOG)  # it is added to, not replaced
        write_text(folder / CONFIG, config.to_yaml())


def refuse_another(folder: Path, config: RunConfig) -> None:
    """Refuses a folder whose run was started with other settings; ``evaluation`` and ``wandb`` may change.

    Raises:
        ConfigError: names the first key that differs.
    """
    if not (folder / "config.yaml").is_file():
        return
    if (differs := first_difference(folder, config)) is not None:
        raise ConfigError("{}: holds a run with {}={}, not {}; choose another --out".format(folder, *differs))


def is_finished(folder: Path, config: RunConfig) -> bool:
    """Whether the folder holds this very run, trained and evaluated, with the results it was evaluated to."""
    mark = readable_object(folder, MARK, _MAX_MARK)
    return bool(mark) and mark == _mark(folder, config)


def run_cell(folder: Path) -> None:
    """Trains and evaluates what ``cell.yaml`` says, or as much of it as is not done yet.

    Raises:
        UserError: the configuration or the data are wrong.
        FolderInUse: another process has the run in hand.
    """
    import torch

    from offline_robust.evaluation import clear_cells
    from offline_robust.experiments.earlier import CELLS, save_results
    from offline_robust.experiments.evaluating import evaluate_run
    from offline_robust.experiments.reporting import log_run_evaluation
    from offline_robust.experiments.train import train

    with writing(folder):
        config = load_config(within(folder, CONFIG))
        if is_finished(folder, config):
            return
        with _told_as_train(folder):
            run = train(config, out=folder, resume=True, progress=_Told())
        parts: tuple[Path, ...] = ()
        if run.env_id is None:
            _say("trained; not evaluated, for neither the dataset nor the configuration names an environment")
        else:
            torch.set_num_threads(1)  # one forward of a few dozen rows: more threads only wait for each other
            results = evaluate_run(run, cells=folder / CELLS)
            save_results(folder, results)
            parts = results.cells
            log_run_evaluation(run, results)
        write_json(folder / MARK, _mark(folder, config))
        clear_cells(folder / CELLS, parts)
        _say("finished")


def logged_cell(folder: Path, imports: Sequence[str] = ()) -> int:
    """`run_cell` with everything that is to say about it on standard output; returns an exit status.

    ``imports`` are modules that the user named in the driver (`offline_robust.environment.import_modules`).
    """
    warnings.showwarning = _show_warning
    _say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} process {os.getpid()}: {folder.name}")
    try:
        import_modules(imports)
        run_cell(folder)
    except FolderInUse as error:
        _say(f"left alone: {error}")
        return IN_HAND
    except UserError as error:
        _say(f"error: {' '.join(str(error).split())}")
        return 2
    except OSError as error:
        if error.errno not in FULL:
            _say(traceback.format_exc())
        _say(f"error: {error.filename or 'input/output'}: {error.strerror or error}")
        return 1
    except Exception:
        _say(traceback.format_exc())
        return 1
    return 0


def into_log(folder: str, working: str, imports: Sequence[str] = ()) -> int:
    """`logged_cell` inside a worker process of another engine: its output goes to the folder's log."""
    if Path(working).is_dir():
        os.chdir(working)  # datasets and suites may be given by relative paths
    with (
        (Path(folder) / LOG).open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        return logged_cell(Path(folder), imports)


def last_lines(folder: Path, count: int = 3) -> list[str]:
    """The last lines of a cell's log that are not empty."""
    try:
        with (folder / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4_000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


@contextlib.contextmanager
def _told_as_train(folder: Path) -> Iterator[None]:
    """Makes meta.json name the command that trains this run again, by itself; reports print it."""
    path = folder / CONFIG
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    before, sys.argv = sys.argv, ["offline-robust", "train", shlex.quote(str(shown))]
    try:
        yield
    finally:
        sys.argv = before


class _Told:
    """Writes every tenth of a training to the log."""

    def __init__(self) -> None:
        self._last = -1

    def __call__(self, phase: str, done: int, total: int, rate: float) -> None:
        tenth = done * _STEPS_TOLD // total
        if tenth != self._last:
            self._last = tenth
            _say(f"{time.strftime('%H:%M:%S')} {phase} {done:,} of {total:,}, {rate:,.0f} updates/s")


def _say(text: str) -> None:
    """Into the log, as long as there is room: what is said of a run never ends it."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _mark(folder: Path, config: RunConfig) -> dict[str, Any]:
    """What a finished cell is: its configuration, the content of its suites, and the results."""
    from offline_robust.evaluation.request import suites_digest

    suites = suites_digest(config.evaluation.suite)
    return {"config": digest(config), "suites": suites, "results": _results_hash(folder)}


def _results_hash(folder: Path) -> str | None:
    try:
        return hashlib.sha256(within(folder, "results.csv").read_bytes()).hexdigest()
    except OSError:
        return None


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {readable(str(message))}")


def _end_with_the_driver() -> None:
    """Ends this process when the one that started it is gone: standard input is a pipe that nothing is written to."""

    def watch() -> None:
        # The bare descriptor: a reader that holds sys.stdin's lock would break the interpreter's own end.
        while os.read(0, 1024):
            pass
        remove_temporaries()
        os._exit(1)  # at once, as by kill -9: whatever is on disk is whole

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Entry point of the process."""
    _end_with_the_driver()
    try:
        with heard():
            status = logged_cell(Path(sys.argv[1]), sys.argv[2:])
    except Stopped as stopped:
        _say(said(stopped.number))
        status = stopped.status
    sys.exit(status)
