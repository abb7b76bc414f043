"""`offline-robust suites [ENV]` and `offline-robust parameters ENV`: what can be perturbed, and how it usually is."""

from __future__ import annotations

import json
import textwrap
from typing import Annotated, Any

import typer

from offline_robust.cli.options import Import, Json
from offline_robust.cli.output import plain_table, wide_console

EnvId = Annotated[str, typer.Argument(metavar="ENV", help="A Gymnasium id, for example Hopper-v5.")]
MaybeEnvId = Annotated[str | None, typer.Argument(metavar="[ENV]", help="Only suites that fit this environment.")]

_SOURCE = 140
"""Characters of a source that the table shows: its first sentence at most, `--json` has all."""

_MANY = 4
"""Nominal values that are written out; of more the range is shown."""


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command("suites")(suites)
    app.command("parameters")(parameters)


def suites(env: MaybeEnvId = None, import_: Import = None, as_json: Json = False) -> None:
    """List the bundled suites, or those that fit an environment, with the number of conditions and their source."""
    rows = suite_rows(env)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    made = () if env else ("environments",)
    table = plain_table(("suite", *made, "conditions", "source"), f"suites for {env}" if env else None)
    for row in rows:
        ids = () if env else (", ".join(row["env_ids"]) or "every one",)
        counts = sorted(set(row["conditions"].values()))
        source = textwrap.shorten(row["source"].partition(". ")[0], _SOURCE, placeholder=" ...")
        table.add_row(row["name"], *ids, _range(counts), source)
    console = wide_console()
    console.print(table)
    if not rows:
        console.print("no bundled suite fits; --perturb sweeps any parameter of `offline-robust parameters`")


def parameters(env: EnvId, import_: Import = None, as_json: Json = False) -> None:
    """List what can be perturbed in an environment: unit, nominal value, range, default mode, meaning."""
    rows = parameter_rows(env)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = plain_table(("parameter", "nominal", "range", "mode", "meaning"), f"parameters of {env}")
    for row in rows:
        left = "(" if row["low_excluded"] else "["
        limits = f"{left}{row['low']:g}, {row['high']:g}]"
        meaning = row["meaning"] + (" (the model is built again)" if row["structural"] else "")
        table.add_row(
            row["name"],
            _with_unit(nominal_text(row["nominal"]), row["unit"]),
            limits,
            row["default_mode"],
            meaning,
        )
    wide_console().print(table)


def _with_unit(value: str, unit: str) -> str:
    return value if unit in ("", "1", "-") else f"{value} {unit}"


def suite_rows(env: str | None) -> list[dict[str, Any]]:
    """Name, environments, source and, for each environment, the number of conditions of the bundled suites.

    A suite made for every environment has its conditions under ``"any"`` where no environment is named. With one named
    the nominal condition, which evaluation adds where there is none, counts.

    Raises:
        EvaluationError: there is no such environment.
    """
    from offline_robust.envs import list_suites, load_suite, system
    from offline_robust.errors import EvaluationError

    of = None if env is None else system(env)
    rows = []
    for name in list_suites():
        suite = load_suite(name)
        counts: dict[str, int] = {}
        if of is None:
            for part in suite.parts:
                for env_id in part.env_ids or ("any",):
                    counts[env_id] = counts.get(env_id, 0) + len(part.conditions)
        else:
            try:
                counts[of.env_id] = len(suite.for_system(of))
            except EvaluationError:  # made for others, or the environment lacks a parameter
                continue
        env_ids = list(suite.env_ids)
        rows.append({"name": name, "env_ids": env_ids, "conditions": counts, "source": suite.source})
    return rows


def parameter_rows(env: str) -> list[dict[str, Any]]:
    """What can be perturbed in an environment, as plain values; ``nominal`` is a list, one entry per member of a group.

    Raises:
        EvaluationError: there is no such environment.
    """
    from offline_robust.envs import system

    of = system(env)
    return [
        {
            "name": name,
            "target": spec.target,
            "unit": spec.unit,
            "nominal": [float(v) for v in of.nominal[name]] if name in of.nominal else [spec.nominal],
            "low": spec.low,
            "high": spec.high,
            "low_excluded": spec.low_open,
            "default_mode": spec.default_mode,
            "structural": spec.structural,
            "meaning": spec.meaning,
        }
        for name, spec in of.parameters.items()
    ]


def nominal_text(values: list[float]) -> str:
    """Nominal values for a table: one, a few, or the range of many."""
    if len(set(values)) == 1:
        return f"{values[0]:.4g}" + (f" ({len(values)} alike)" if len(values) > 1 else "")
    if len(values) <= _MANY:
        return ", ".join(f"{value:.4g}" for value in values)
    return f"{min(values):.4g} to {max(values):.4g} ({len(values)} values)"


def _range(counts: list[int]) -> str:
    return "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"
