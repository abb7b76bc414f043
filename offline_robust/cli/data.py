"""``offline-robust data``: list, info, check, collect, convert."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from offline_robust.cli.arguments import counted, measured
from offline_robust.cli.options import EnvOfData, Import, Json, Quiet
from offline_robust.cli.output import Console, Table, Text, bars, plain_table, spinner, wide_console
from offline_robust.cli.output import out as stdout
from offline_robust.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Read, check, describe, collect and convert datasets.")

Source = Annotated[
    str,
    typer.Argument(
        help="Bundled name, Minari id or folder, or a file: .hdf5 or .h5 (D4RL, d3rlpy), .npz, .csv, .parquet, .jsonl."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """Datasets that can be had by name: shipped ones, ones made on demand, and Minari's local ones."""
    from offline_robust.datasets import bundled_names
    from offline_robust.datasets.sources import minari_ids

    rows = [_known(name) for name in bundled_names()]
    rows += [{"name": name, "kind": "minari", "data": "here"} for name in minari_ids()]
    if as_json:
        _print_json(rows)
        return
    table = plain_table(("name", "data", "rows", "description"))
    table.columns[1].no_wrap = table.columns[2].no_wrap = True
    for row in rows:
        size = f"{row['transitions']:,}" if "transitions" in row else ""
        table.add_row(row["name"], row["data"], size, row.get("description", ""))
    console = wide_console()
    console.print(table)
    if any(row["data"] == "on demand" for row in rows):
        console.say("on demand: make it with offline-robust data collect NAME")


def _known(name: str) -> dict[str, Any]:
    """One line of the list: a bundled recipe, and whether its data are shipped, made, or to be made."""
    from offline_robust.collection import load_recipe
    from offline_robust.datasets.sources import bundled_data, made_folder

    recipe = load_recipe(name)
    shipped, made = bundled_data(name), made_folder(name)
    here = shipped or (made if made is not None and (made / "data").is_dir() else None)
    return {
        "name": name,
        "kind": "bundled",
        "data": "shipped" if shipped else "made" if here else "on demand",
        "path": None if here is None else str(here / "data"),
        "transitions": recipe.rows,
        "env_id": recipe.env_id,
        "description": recipe.description,
    }


@app.command()
def info(source: Source, env: EnvOfData = None, import_: Import = None, as_json: Json = False) -> None:
    """Sizes, returns, ends, statistics per dimension, and how much of the action space the data cover."""
    from offline_robust.datasets import describe, load_dataset

    with spinner(f"reading {source}"):
        content = describe(load_dataset(source, env=env))
    if as_json:
        _print_json(content)
        return
    console = Console()
    summary = Table("what", "value", title=source)
    for key in ("environment", "transitions", "episodes", "observation_space", "action_space"):
        summary.add_row(key, f"{content[key]:,}" if isinstance(content[key], int) else str(content[key]))
    summary.add_row("memory", f"{content['memory_bytes'] / 1e6:,.1f} MB")
    for key in ("returns", "episode_lengths"):
        spread = content[key]
        summary.add_row(key, f"mean {spread['mean']:,.1f}, median {spread['q50']:,.1f}, {_range(spread)}")
    ends = f"{content['episodes_terminated']:.1%} terminated, {content['episodes_truncated']:.1%} truncated"
    summary.add_row("episodes end", ends)
    summary.add_row("rows without next observation", f"{content['rows_without_next_observation']:,}")
    for key, value in content["provenance"].items():
        summary.add_row(key, str(value))
    summary.add_row("fingerprint", content["fingerprint"])
    console.print(summary)
    names = content["observation_names"]
    console.print(_dimension_table("observations", content["observations"], content["one_step_change_std"], names))
    console.print(_action_table(content))


@app.command("check")
def check_source(
    source: Source, env: EnvOfData = None, import_: Import = None, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Everything that is wrong or worth knowing, with row numbers. Leaves with 2 when the data do not load."""
    from offline_robust.datasets.load import examine

    with spinner(f"reading {source}", quiet):
        problems, agreement = examine(source, env=env)
    errors = sum(problem.severity == "error" for problem in problems)
    if as_json:
        listed = [problem.as_dict() for problem in problems]
        compared = None if agreement is None else str(agreement)
        _print_json({"source": source, "errors": errors, "problems": listed, "environment": compared})
    elif not quiet:
        console = Console()
        if problems:
            table = Table("severity", "where", "what", "how to mend")
            for problem in problems:
                colour = "red" if problem.severity == "error" else "yellow"
                table.add_row(Text(problem.severity, colour), problem.where, problem.what, problem.mend)
            console.print(table)
        console.print(f"{errors} errors, {len(problems) - errors} warnings")
        if agreement is not None:
            console.say(str(agreement))
    if errors:
        raise typer.Exit(2)


@app.command()
def collect(
    name: Annotated[str | None, typer.Argument(help="A bundled dataset, or a recipe.yaml.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for data, recipe and card.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="In place of NAME: a policy file, a run's folder, a bundled policy, or 'random'.")
    ] = None,
    env: Annotated[str | None, typer.Option(help="With --policy: the environment. Default: the policy's own.")] = None,
    transitions: Annotated[int, counted(1, "With --policy: rows.")] = 100_000,
    epsilon: Annotated[
        float,
        measured("With --policy: probability of a uniform action, each step."),
    ] = 0.0,
    stochastic: Annotated[bool, typer.Option("--stochastic", help="With --policy: draw its actions.")] = False,
    perturb: Annotated[list[str] | None, typer.Option(help="With --policy: physics, as in ctrlrange=0.85.")] = None,
    seed: Annotated[int, counted(0, "With --policy: of start states and exploration.")] = 0,
    import_: Import = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a dataset: a bundled one into your own datasets (or --out), or a new one with a policy of yours."""
    from offline_robust.collection import load_recipe, make_dataset, make_recipe, own_recipe
    from offline_robust.collection.recipes import recipe_file
    from offline_robust.datasets import bundled_names
    from offline_robust.datasets.sources import bundled_data, folder_to_make

    if (name is None) == (policy is None) or (policy is not None and out is None):
        raise ConfigError(
            "data collect takes either NAME (see: offline-robust data list) or --policy FILE --out FOLDER"
        )
    if name is not None:
        recipe, beside = load_recipe(name), recipe_file(name)[0].parent
    else:
        recipe = own_recipe(Path(str(out)), str(policy), env, transitions, epsilon, stochastic, perturb or [], seed)
        beside = Path()
    with _bar(f"collecting {recipe.name}", recipe.rows, quiet) as advance:
        if name in bundled_names() and out is None:
            folder = bundled_data(str(name)) or folder_to_make(str(name))
            dataset = make_dataset(str(name), overwrite=overwrite, progress=advance)
        else:
            folder = out or Path(recipe.name)
            dataset = make_recipe(recipe, beside, folder, overwrite=overwrite, progress=advance)
    _done(folder / "data", dataset.fingerprint, len(dataset), as_json, quiet)


@app.command("convert")
def convert_source(
    source: Source,
    target: Annotated[Path, typer.Argument(help="File (.hdf5, .npz) or folder (Minari) to write.")],
    to: Annotated[str | None, typer.Option("--to", help="minari, d4rl or npz; else by the target's ending.")] = None,
    env: EnvOfData = None,
    import_: Import = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Writes whatever is read as Minari, D4RL's HDF5 or npz; there and back is exact, float64 included."""
    from offline_robust.datasets import convert, load_dataset

    with spinner(f"converting {source}", quiet):
        written = convert(source, target, env=env, to=to, overwrite=overwrite)
        dataset = load_dataset(written, cache=False)
    _done(written, dataset.fingerprint, len(dataset), as_json, quiet)


def _done(path: Path, fingerprint: str, rows: int, as_json: bool, quiet: bool) -> None:
    if as_json:
        _print_json({"path": str(path), "transitions": rows, "fingerprint": fingerprint})
    elif not quiet:
        stdout.say(f"{path}: {rows:,} transitions, fingerprint {fingerprint[:16]}")


def _range(spread: dict[str, float]) -> str:
    return f"{spread['q00']:,.1f} to {spread['q100']:,.1f}"


def _dimension_table(
    title: str, rows: Sequence[dict[str, float]], change: Sequence[float] | None, names: Sequence[str] | None
) -> Table:
    table = Table("dimension", "mean", "std", "min", "max", "one-step change std", title=title)
    for index, row in enumerate(rows):
        cells = [f"{row[key]:.4g}" for key in ("mean", "std", "min", "max")]
        shown = str(index) if names is None else f"{index} {names[index]}"
        table.add_row(shown, *cells, "" if change is None else f"{change[index]:.4g}")
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
def _bar(text: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; silent when stderr is not a terminal."""
    with bars(quiet) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.update(task, completed=done)
