"""`offline-robust sweep CONFIG`, and what `compare` shares with it: running many runs and telling how it goes."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from offline_robust.cli.arguments import counted
from offline_robust.cli.options import Import, Json, Quiet, Score
from offline_robust.cli.output import TaskID, bars, err
from offline_robust.cli.output import out as stdout
from offline_robust.errors import readable

EngineName = Annotated[str, typer.Option("--engine", help="local: processes here. ray: tasks of a Ray cluster.")]
Jobs = Annotated[
    int | None,
    counted(1, "Runs at once. Default: as many as there are cores for."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the runs and how far they are; write nothing.")]
Download = Annotated[
    bool, typer.Option("--download", help="Download Minari datasets that a file names and that are not here.")
]
Wandb = Annotated[
    str | None, typer.Option("--wandb", metavar="MODE", help="disabled, auto, offline or online, for every run.")
]


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command("sweep")(sweep)


def sweep(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a bundled sweep.")],
    picks: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Only the runs that have these values.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder. Default: runs/ and the file's name.")] = None,
    engine: EngineName = "local",
    jobs: Jobs = None,
    dry_run: DryRun = False,
    wandb: Wandb = None,
    wandb_file: Annotated[
        Path | None, typer.Option(help="Write the sweep as a Weights & Biases sweep file there, and run nothing.")
    ] = None,
    import_: Import = None,
    score: Score = None,
    download: Download = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train and evaluate many runs from one YAML file: grids, lists and seeds. What is finished is never done again.

    A sweep that was stopped, however, goes on when the same command is given again: each run from its checkpoint.
    """
    from offline_robust.experiments.config import parse_override
    from offline_robust.sweeps.grids import expand, load_sweep
    from offline_robust.sweeps.picks import select, wandb_sweep, write_wandb_sweep

    chosen_values = [parse_override(text) for text in picks or []]
    loaded = load_sweep(config)
    cells = expand(loaded, config)
    folder = out or Path("runs") / Path(config).stem
    if wandb_file is not None:
        write_wandb_sweep(wandb_file, wandb_sweep(loaded, cells, config, str(folder)))
        if not quiet:
            stdout.say(f"W&B sweep of {len(cells)} runs: {wandb_file}")
        return
    chosen = select(cells, chosen_values, loaded) if chosen_values else None
    command = shlex.join(["offline-robust", *sys.argv[1:]])
    run_and_show(
        loaded, cells, folder, chosen, engine, jobs, dry_run, wandb, score, quiet, as_json, command, download=download
    )


def run_and_show(
    loaded: Any,
    cells: Sequence[Any],
    out: Path,
    chosen: Sequence[Any] | None,
    engine: str,
    jobs: int | None,
    dry_run: bool,
    wandb: str | None,
    score: str | None,
    quiet: bool,
    as_json: bool,
    command: str,
    notes: Sequence[str] = (),
    download: bool = False,
) -> None:
    """Runs a sweep and prints what came of it; leaves with status 1 when a run failed."""
    from offline_robust.sweeps.driver import check_evaluation, look, run_sweep

    if wandb is not None:
        cells = _with_wandb(cells, wandb)
        by_name = {cell.name: cell for cell in cells}
        chosen = None if chosen is None else [by_name[cell.name] for cell in chosen]
    if dry_run:
        check_evaluation(cells, score)
        names = {cell.name for cell in chosen or cells}
        _list([state for state in look(cells, out) if state.cell.name in names], notes, as_json)
        return
    if not (quiet or as_json):
        for note in notes:
            stdout.say(note)
    with _run_bars(quiet or as_json) as progress:
        outcome = run_sweep(
            loaded,
            cells,
            out,
            chosen=chosen,
            engine_name=engine,
            jobs=jobs,
            progress=progress,
            command=command,
            score=score,
            download=download,
        )
    for state in outcome.failed:
        last = state.said[-1] if state.said else ""
        err.say(f"failed: {state.cell.name}: {_line(last)}", style="red")
        for line in state.said[:-1]:
            err.say(f"    {_line(line)}")
        err.say(f"    log: {state.folder / 'log.txt'}")
    for note in outcome.notes:
        err.say(f"warning: {_line(note)}", style="yellow")
    if as_json:
        print(json.dumps(_content(outcome, notes), indent=2, default=str))
    elif not quiet:
        _show(outcome)
    if outcome.failed or outcome.unreported:
        sys.exit(1)


def updates_note(rows: Sequence[dict[str, Any]]) -> str:
    """Says whether all learners make the same number of updates, and if not, how many each."""
    policy = {row["updates"] for row in rows}
    if len(policy) == 1 and not any(row["model_updates"] for row in rows):
        return f"updates: {policy.pop():,} of every learner"
    several = len({row["dataset"] for row in rows}) > 1
    parts = []
    for row in rows:
        before = f" after {row['model_updates']:,} of its model" if row["model_updates"] else ""
        parts.append(f"{row['learner']}{' on ' + row['dataset'] if several else ''} {row['updates']:,}{before}")
    return ("updates: " if len(policy) == 1 else "updates differ: ") + "; ".join(parts)


def _with_wandb(cells: Sequence[Any], mode: str) -> list[Any]:
    from dataclasses import replace

    from offline_robust.experiments.config import load_config

    return [replace(cell, config=load_config(cell.config.to_dict(), {"wandb.mode": mode})) for cell in cells]


def _list(states: Sequence[Any], notes: Sequence[str], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"cells": [state.to_dict() for state in states], "notes": list(notes)}, indent=2, default=str))
        return
    for note in notes:
        stdout.say(note)
    for state in states:
        stdout.say(f"{state.state:<9} {state.cell.name}")
    stdout.say(_counts(states))


def _show(outcome: Any) -> None:
    from offline_robust.reports import summary_table

    if outcome.report is not None and len(set(outcome.results.meta["datasets"].values())) == 1:
        stdout.say(summary_table(outcome.results))
    stdout.say(_counts(outcome.states))
    if outcome.results is not None:
        stdout.say(f"results: {outcome.out / 'results.csv'}")
    if outcome.report is not None:
        stdout.say(f"report: {outcome.report}")


def _content(outcome: Any, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "out": str(outcome.out),
        "cells": [state.to_dict() for state in outcome.states],
        "results": str(outcome.out / "results.csv") if outcome.results is not None else None,
        "report": str(outcome.report) if outcome.report else None,
        "notes": [*notes, *outcome.notes],
    }


def _counts(states: Sequence[Any]) -> str:
    counts = Counter(state.state for state in states)
    return f"{len(states)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def _line(text: str) -> str:
    return readable(text)[:500]


@contextmanager
def _run_bars(silent: bool) -> Iterator[Callable[[Sequence[Any]], None] | None]:
    """A bar for all runs and one for each that is running, on standard error; none where that is not a terminal."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    with bars(elapsed=True) as shown_bars:
        whole = shown_bars.add_task("runs")
        shown: dict[str, TaskID] = {}

        def tell(states: Sequence[Any]) -> None:
            counts = Counter(state.state for state in states)
            failed = f", {counts['failed']} failed" if counts["failed"] else ""
            ended = counts["finished"] + counts["failed"]
            shown_bars.update(whole, total=len(states), completed=ended, description=f"runs{failed}")
            for state in states:
                name = state.cell.name
                if state.state == "running" and state.total:
                    if name not in shown:
                        shown[name] = shown_bars.add_task(name, total=state.total)
                    shown_bars.update(shown[name], completed=state.done, description=f"{name} {state.phase}")
                elif state.state != "running" and name in shown:
                    shown_bars.remove_task(shown.pop(name))

        yield tell
