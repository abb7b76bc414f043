"""`offline-robust train | evaluate | compare | sweep | report | suites | parameters | data | bench | doctor`.

Exit status: 0 on success, 2 on bad input with one clear line, 1 on failure, 130 when stopped from the keyboard, 143 by
SIGTERM.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from offline_robust.cli import catalogue, data, evaluate, sweep
from offline_robust.cli.arguments import counted
from offline_robust.cli.options import IgnoreWrapper, Import, Json, Quiet, Score
from offline_robust.cli.output import err
from offline_robust.cli.output import out as stdout
from offline_robust.cli.progress import progress_bar
from offline_robust.errors import UserError, readable
from offline_robust.files import writable_home
from offline_robust.stopping import Stopped, said

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Offline robust reinforcement learning: from logged data to a policy tested on perturbed systems.",
)
app.add_typer(data.app, name="data")
catalogue.register(app)
evaluate.register(app)
sweep.register(app)


# Typer brings a click of its own from 0.2x on and used the package before: Typer's own names fit both.
_USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_BAD_PATH = (
    errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS,
    errno.ENOTEMPTY,
)  # fmt: skip
"""What a wrong --out or input comes to: a file in the way, no right to write, no name at all."""
_MAX_MESSAGE = 500
_STOPPED = 130


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or a bundled name such as dr_sac/pendulum.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, for example learner.delta=0.3.")] = None,
    seed: Annotated[int | None, counted(0, "Seed of the training. Default: the config's.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, bit for bit.")] = False,
    ignore_wrapper: IgnoreWrapper = None,
    import_: Import = None,
    download: sweep.Download = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a learner on a dataset."""
    from offline_robust import experiments

    overrides = dict(experiments.parse_override(text) for text in set_ or [])
    if seed is not None:
        overrides["seed"] = seed
    if ignore_wrapper:
        overrides["env.ignore_wrappers"] = ignore_wrapper
    with progress_bar(quiet or as_json) as bar:
        run = experiments.train(config, overrides, out=out, resume=resume, progress=bar.training, download=download)
    if as_json:
        _print_json({"run": str(run.folder), "meta": run.meta})
    elif not quiet:
        minutes, speed = run.meta.get("training_minutes"), run.meta.get("updates_per_s")
        stdout.say(f"trained {run.meta['label']} in {minutes} minutes ({speed} updates/s): {run.folder}")
        stdout.say(f"next: offline-robust evaluate {shlex.quote(str(run.folder))}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run's folder, one that compare wrote, or a table in its results/.")],
    score: Score = None,
    outside: Annotated[
        bool, typer.Option("--outside", help="Read runs outside FOLDER that it names, whatever they hold by now.")
    ] = False,
) -> None:
    """Write report.html anew from the results in a folder, with the scores it had or those that are named now."""
    from offline_robust.experiments.reporting import rewrite_report

    stdout.say(f"report: {rewrite_report(folder, score, outside)}")


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="updates, loading or all.")] = "all",
    threads: Annotated[int, counted(1, "CPU threads.")] = 2,
    rounds: Annotated[int, counted(1, "Interleaved rounds; the median of each is reported.")] = 5,
    as_json: Json = False,
) -> None:
    """Measure speed side by side, in one run: updates of the learners and of d3rlpy's SAC; loading of many episodes."""
    from offline_robust.cli import bench as benchmarks

    figures = benchmarks.run(what, threads, rounds)
    if as_json:
        _print_json(figures)
    else:
        stdout.say(benchmarks.table(figures))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Print versions, devices, extras and data roots."""
    from offline_robust.cli.doctor import examine

    facts = examine()
    if as_json:
        _print_json(facts)
        return
    for section, values in facts.items():
        stdout.say(section, style="bold")
        for key, value in values.items():
            stdout.say(f"  {key:<16} {value}")


def run() -> None:
    """Reads the command line and does what it says; leaves with a status."""
    warnings.showwarning = _show_warning
    with _folder_for_matplotlib():
        _run()


def _run() -> None:
    try:
        status = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error), 2)
    except _USAGE_ERROR as error:
        _fail_usage(error)
    except Stopped as stopped:
        _fail(said(stopped.number), stopped.status)
    except (typer.Abort, KeyboardInterrupt):
        status = _STOPPED
    except OSError as error:
        name = str(error.filename or "input/output")
        bad = error.errno in _BAD_PATH
        mend = "; choose another place, one that you may write to" if bad else ""
        _fail(f"{name[:400]}: {error.strerror or error}{mend}", 2 if bad else 1)
    if status == _STOPPED:  # some versions of Typer give the status, others raise
        _fail(said(signal.SIGINT), _STOPPED)
    sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def _folder_for_matplotlib() -> Iterator[None]:
    """Matplotlib writes a paragraph to standard error where it has no home to keep its fonts in."""
    if "MPLCONFIGDIR" in os.environ or writable_home() is not None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="matplotlib-") as folder:
        os.environ["MPLCONFIGDIR"] = folder
        yield


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, default=str))


def _fail(message: str, status: int) -> None:
    err.say(f"error: {_one_line(message)}", style="red")
    sys.exit(status)


def _fail_usage(error: Any) -> None:
    """A wrong option or argument: one line. No command at all: the help, which Typer may have printed by now."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, end="\n" if message else "")
        sys.exit(2)
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context is not None else ""
    _fail(message.rstrip(".") + hint, 2)


def _one_line(message: str) -> str:
    """Printable characters only, for names in messages may come from any file, and not many of them."""
    line = readable(message)
    return line if len(line) <= _MAX_MESSAGE else f"{line[: _MAX_MESSAGE - 155]} ... {line[-150:]}"


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    err.say(f"warning: {_one_line(str(message))}", style="yellow")
