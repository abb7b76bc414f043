"""``offline-robust data``: list, info, check, collect, convert."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from offline_robust.datasets import (
    bundled_names,
    check,
    collect_recipe,
    convert,
    describe,
    load_dataset,
    load_recipe,
)
from offline_robust.datasets.sources import minari_ids

app = typer.Typer(no_args_is_help=True, help="Read, check, describe, collect and convert datasets.")

Source = Annotated[str, typer.Argument(help="Bundled name, Minari id or folder, .hdf5 (D4RL) or .npz file.")]
EnvId = Annotated[str | None, typer.Option("--env-id", help="Environment the data came from; it gives the spaces.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """Datasets that can be loaded by name: bundled ones, and Minari's local ones."""
    rows = [{"name": name, "kind": "bundled", "description": load_recipe(name).description} for name in bundled_names()]
    rows += [{"name": name, "kind": "minari", "description": ""} for name in minari_ids()]
    if as_json:
        _print_json(rows)
        return
    table = Table("name", "kind", "description")
    for row in rows:
        table.add_row(*(escape(row[key]) for key in ("name", "kind", "description")))
    Console().print(table)


@app.command()
def info(source: Source, env_id: EnvId = None, as_json: Json = False) -> None:
    """Sizes, returns, ends, statistics per dimension, and how much of the action space the data cover."""
    with _working(f"reading {source}"):
        content = describe(load_dataset(source, env_id=env_id))
    if as_json:
        _print_json(content)
        return
    console = Console()
    summary = Table("what", "value", title=escape(source))
    for key in ("env_id", "env_kwargs", "transitions", "episodes", "observation_space", "action_space"):
        summary.add_row(key, escape(f"{content[key]:,}" if isinstance(content[key], int) else str(content[key])))
    summary.add_row("memory", f"{content['memory_bytes'] / 1e6:,.1f} MB")
    for key in ("returns", "episode_lengths"):
        spread = content[key]
        summary.add_row(key, f"mean {spread['mean']:,.1f}, median {spread['q50']:,.1f}, {_range(spread)}")
    ends = f"{content['episodes_terminated']:.1%} terminated, {content['episodes_truncated']:.1%} truncated"
    summary.add_row("episodes end", ends)
    summary.add_row("rows without next observation", f"{content['rows_without_next_observation']:,}")
    for key, value in content["provenance"].items():
        summary.add_row(key, escape(str(value)))
    summary.add_row("fingerprint", content["fingerprint"])
    console.print(summary)
    console.print(_dimension_table("observations", content["observations"], content["one_step_change_std"]))
    console.print(_action_table(content))


@app.command("check")
def check_source(source: Source, env_id: EnvId = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Everything that is wrong or worth knowing, with row numbers. Leaves with 2 when the data do not load."""
    with _working(f"reading {source}", quiet):
        problems = check(source, env_id=env_id)
    errors = sum(problem.severity == "error" for problem in problems)
    if as_json:
        _print_json({"source": source, "errors": errors, "problems": [problem.as_dict() for problem in problems]})
    elif not quiet:
        console = Console()
        if problems:
            table = Table("severity", "where", "what", "how to mend")
            for problem in problems:
                colour = "red" if problem.severity == "error" else "yellow"
                words = (escape(text) for text in (problem.where, problem.what, problem.mend))
                table.add_row(f"[{colour}]{problem.severity}[/]", *words)
            console.print(table)
        console.print(f"{errors} errors, {len(problems) - errors} warnings")
    if errors:
        raise typer.Exit(2)


@app.command()
def collect(
    name: Annotated[str, typer.Argument(help="A bundled dataset, or a recipe.yaml.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the data; ./NAME when left out.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Makes a dataset anew from its recipe, in Minari's layout."""
    recipe = load_recipe(name)
    folder = out if out is not None else Path(recipe.name)
    with _bar(f"collecting {recipe.name}", recipe.transitions, quiet) as advance:
        dataset = collect_recipe(name, folder, overwrite=overwrite, progress=advance)
    _done(folder / "data", dataset.fingerprint, len(dataset), as_json, quiet)


@app.command("convert")
def convert_source(
    source: Source,
    target: Annotated[Path, typer.Argument(help="File (.hdf5, .npz) or folder (Minari) to write.")],
    to: Annotated[str | None, typer.Option("--to", help="minari, d4rl or npz; else by the target's ending.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Converts between Minari, D4RL's HDF5 and npz; there and back is exact."""
    with _working(f"converting {source}", quiet):
        written = convert(source, target, to=to, overwrite=overwrite)
        dataset = load_dataset(written, cache=False)
    _done(written, dataset.fingerprint, len(dataset), as_json, quiet)


def _done(path: Path, fingerprint: str, rows: int, as_json: bool, quiet: bool) -> None:
    if as_json:
        _print_json({"path": str(path), "transitions": rows, "fingerprint": fingerprint})
    elif not quiet:
        typer.echo(f"{path}: {rows:,} transitions, fingerprint {fingerprint[:16]}")


def _range(spread: dict[str, float]) -> str:
    return f"{spread['q00']:,.1f} to {spread['q100']:,.1f}"


def _dimension_table(title: str, rows: Sequence[dict[str, float]], change: Sequence[float] | None) -> Table:
    table = Table("dimension", "mean", "std", "min", "max", "one-step change std", title=title)
    for index, row in enumerate(rows):
        cells = [f"{row[key]:.4g}" for key in ("mean", "std", "min", "max")]
        table.add_row(str(index), *cells, "" if change is None else f"{change[index]:.4g}")
    return table


def _action_table(content: dict[str, Any]) -> Table:
    if content["discrete"]:
        table = Table("action", "count", "share", title="actions")
        for index, row in enumerate(content["actions"]):
            table.add_row(str(index), f"{row['count']:,}", f"{row['share']:.1%}")
        return table
    table = Table("dimension", "mean", "std", "min", "max", "share of range", "entropy", title="actions")
    for index, (row, covered) in enumerate(zip(content["actions"], content["coverage"], strict=True)):
        share = covered["share_of_range"]
        cells = [f"{row[key]:.4g}" for key in ("mean", "std", "min", "max")]
        table.add_row(str(index), *cells, "" if share is None else f"{share:.1%}", f"{covered['entropy']:.3f}")
    return table


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2, default=str))


@contextmanager
def _working(text: str, quiet: bool = False) -> Iterator[None]:
    """A spinner on stderr while something of unknown length runs; silent when stderr is not a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield
        return
    with console.status(escape(text)):
        yield


@contextmanager
def _bar(text: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; silent when stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task(escape(text), total=total)
        yield lambda done: progress.update(task, completed=done)
