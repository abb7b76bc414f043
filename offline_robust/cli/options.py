"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer


def _import(given: list[str] | None) -> list[str] | None:
    """Imports while the command line is read: what is imported registers environments that other options name."""
    if given:
        from offline_robust.environment import import_modules

        import_modules(given)
    return given


Import = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        callback=_import,
        is_eager=True,
        help="Import a module, or a .py file, of environments, wrappers or learners; may be repeated.",
    ),
]
IgnoreWrapper = Annotated[
    list[str] | None,
    typer.Option("--ignore-wrapper", metavar="NAME", help="Leave out a wrapper of the data's environment."),
]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Cut episodes there; for environments without a limit.")]
EnvOfData = Annotated[
    str | None,
    typer.Option("--env", "--env-id", help="Environment the data came from; it gives what the data do not state."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables, for scripts.")]
Score = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Show scores too: d4rl-v2, ours (measured by us), or a YAML file. Default: none."
    ),
]
