"""`offline-robust evaluate` and `offline-robust compare`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offline_robust.cli.arguments import counted
from offline_robust.cli.options import IgnoreWrapper, Import, Json, MaxSteps, Quiet, Score
from offline_robust.cli.output import out as stdout
from offline_robust.cli.progress import progress_bar
from offline_robust.cli.sweep import Download, DryRun, EngineName, Jobs, Wandb, run_and_show, updates_note
from offline_robust.environment import as_choice, split_module
from offline_robust.errors import ConfigError
from offline_robust.files import bundled
from offline_robust.locks import writing
from offline_robust.numerals import whole
from offline_robust.untrusted import within

if TYPE_CHECKING:
    from offline_robust.evaluation import EvaluationRequest

SuiteName = Annotated[
    str | None, typer.Option(help="A suite's name or YAML file; several, separated by commas. Default: the run's own.")
]
Perturb = Annotated[
    list[str] | None,
    typer.Option(help="PARAMETER=START:STOP:COUNT or PARAMETER=A,B,C; several form a grid."),
]
Episodes = Annotated[int | None, counted(1, "Episodes for each condition. Default: the run's own.")]
Env = Annotated[str | None, typer.Option(help="Environment to evaluate in. Default: the run's own.")]
EvaluationSeed = Annotated[int | None, counted(0, "Seed of start states and noise.")]

_YAML = (".yaml", ".yml")
_NAMED = 5
"""Tables of earlier evaluations that are named."""


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to the command line."""
    app.command("evaluate")(evaluate)
    app.command("compare")(compare)


def evaluate(
    run: Annotated[str, typer.Argument(help="A run's folder, a policy file, or a bundled policy's name.")],
    out: Annotated[
        Path | None, typer.Option(help="Where results go. Default: the run's folder, or runs/ and the policy's name.")
    ] = None,
    suite: SuiteName = None,
    perturb: Perturb = None,
    episodes: Episodes = None,
    seed: EvaluationSeed = None,
    env: Env = None,
    max_steps: MaxSteps = None,
    ignore_wrapper: IgnoreWrapper = None,
    import_: Import = None,
    score: Score = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Evaluate a policy under perturbations; writes results.csv and report.html into its run's folder.

    An evaluation that was stopped goes on from its finished conditions when the same command is given again.
    """
    from offline_robust.evaluation import EvaluationRequest
    from offline_robust.experiments import Run
    from offline_robust.experiments.evaluating import open_subject

    subject = open_subject(run)
    folder = out or (subject.folder if isinstance(subject, Run) else Path("runs") / subject.name)
    request = EvaluationRequest(
        suite=suite,
        perturb=perturb,
        episodes=episodes,
        seed=seed,
        env=env,
        max_steps=max_steps,
        ignore_wrappers=ignore_wrapper or (),
    )
    _evaluate_and_report([subject], folder, request, score, quiet, as_json)


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs, policy files or bundled policies of one environment; or one comparison's YAML."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/comparison"),
    dataset: Annotated[
        list[str] | None, typer.Option(help="Train on this dataset and compare; several by commas or repeated.")
    ] = None,
    learners: Annotated[
        str | None,
        typer.Option(help="Learners to train, by commas: dr_sac,sac,d3rlpy:CQL. The report is about the first."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="How many seeds, or a list: 5, or 0,3,7. Default: 5.")] = None,
    steps: Annotated[
        int | None,
        counted(1, "Updates of every learner. Default: each one's configuration."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, for every learner.")] = None,
    suite: SuiteName = None,
    perturb: Perturb = None,
    episodes: Episodes = None,
    seed: EvaluationSeed = None,
    env: Env = None,
    max_steps: MaxSteps = None,
    ignore_wrapper: IgnoreWrapper = None,
    import_: Import = None,
    title: Annotated[str, typer.Option(help="Title of the report.")] = "",
    score: Score = None,
    engine: EngineName = "local",
    jobs: Jobs = None,
    dry_run: DryRun = False,
    wandb: Wandb = None,
    download: Download = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare runs, or train learners on a dataset and compare them: one table, one figure set, one report.html.

    The first run or learner is the one it is about. Whatever was stopped goes on when the same command is given again,
    and what is finished is not done twice.
    """
    given = [text for text in runs or [] if text]
    trains = {"--dataset": dataset, "--learners": learners, "--seeds": seeds, "--steps": steps, "--set": set_}
    asked = [name for name, value in trains.items() if value]
    from_file = len(given) == 1 and _is_comparison(given[0])
    if not asked and not from_file:
        if dry_run or wandb or jobs or engine != "local":
            raise ConfigError(
                "--engine, --jobs, --dry-run and --wandb need learners to train: --dataset and --learners"
            )
        from offline_robust.evaluation import EvaluationRequest
        from offline_robust.experiments.evaluating import open_subject

        if not given:
            raise ConfigError(
                "nothing to compare: give runs, or --dataset and --learners; see offline-robust compare --help"
            )
        request = EvaluationRequest(
            suite=suite,
            perturb=perturb,
            episodes=episodes,
            seed=seed,
            env=env,
            max_steps=max_steps,
            ignore_wrappers=ignore_wrapper or (),
        )
        _evaluate_and_report([open_subject(name) for name in given], out, request, score, quiet, as_json, title)
        return
    if given and not from_file:
        raise ConfigError(f"{asked[0]} trains learners, and {given[0][:80]} is a run: give one or the other")
    if perturb or max_steps:
        raise ConfigError(
            "--perturb and --max-steps compare runs that are there; name a suite or a suite file here (--suite)"
        )
    values = _comparison_values(given, dataset, learners, seeds, steps, set_)
    if env or ignore_wrapper:
        said = {"id": split_module(env)[1]} if env else {}
        if env:
            as_choice(env)  # imports the module that it may name
        values["env"] = said | ({"ignore_wrappers": ignore_wrapper} if ignore_wrapper else {})
    values["evaluation"] = values.get("evaluation", {}) | {
        key: value for key, value in (("suite", suite), ("episodes", episodes), ("seed", seed)) if value is not None
    }
    if title:
        values["title"] = title
    download = download or bool(dataset)  # whoever types a name asks for the data
    _compare_trained(values, given, out, engine, jobs, dry_run, wandb, score, quiet, as_json, download)


def _is_comparison(text: str) -> bool:
    """Whether a text names a comparison's YAML file or a bundled one, and not a run or policy."""
    named = text.isprintable() and "/" not in text and (bundled("configs") / "sweeps" / f"{text}.yaml").is_file()
    return text.endswith(_YAML) or (named and not Path(text).exists())


def _comparison_values(
    given: list[str],
    dataset: list[str] | None,
    learners: str | None,
    seeds: str | None,
    steps: int | None,
    set_: list[str] | None,
) -> dict[str, Any]:
    """What the file says, and over it what the command line says."""
    from offline_robust.experiments.config import parse_override
    from offline_robust.sweeps.comparison import load_comparison

    values: dict[str, Any] = load_comparison(given[0]).model_dump(exclude_none=True) if given else {}
    if dataset:
        values["datasets"] = [name.strip() for text in dataset for name in text.split(",") if name.strip()]
    if learners:
        values["learners"] = [name.strip() for name in learners.split(",") if name.strip()]
    if seeds:
        try:
            numbers = [whole(text) for text in seeds.split(",") if text.strip()]
        except ValueError as problem:
            raise ConfigError(
                f"--seeds {seeds[:80]}: expected a number of seeds or a list, as 5 or 0,3,7 ({problem})"
            ) from None
        if not numbers:
            raise ConfigError(f"--seeds {seeds[:80]!r}: expected a number of seeds or a list, as 5 or 0,3,7")
        values["seeds"] = numbers if "," in seeds else numbers[0]
    if steps:
        values["steps"] = steps
    if set_:
        values["set"] = values.get("set", {}) | dict(parse_override(text) for text in set_)
    for key, option in (("datasets", "--dataset"), ("learners", "--learners")):
        if not values.get(key):
            raise ConfigError(f"{option} is missing: a comparison needs --dataset and --learners")
    return values


def _compare_trained(
    values: dict[str, Any],
    given: list[str],
    out: Path,
    engine: str,
    jobs: int | None,
    dry_run: bool,
    wandb: str | None,
    score: str | None,
    quiet: bool,
    as_json: bool,
    download: bool,
) -> None:
    from offline_robust.sweeps.comparison import comparison_sweep, load_comparison, updates_table
    from offline_robust.sweeps.grids import expand

    where = given[0] if given else "compare"
    plan = comparison_sweep(load_comparison(values), where, download)
    cells = expand(plan, where)
    notes = [updates_note(updates_table(cells))]
    run_and_show(
        plan, cells, out, None, engine, jobs, dry_run, wandb, score, quiet, as_json, _command(), notes, download
    )


def _evaluate_and_report(
    runs: list[Any],
    folder: Path,
    request: EvaluationRequest,
    score: str | None,
    quiet: bool,
    as_json: bool,
    title: str = "",
) -> None:
    import torch

    from offline_robust.experiments.earlier import CELLS, earlier_results
    from offline_robust.experiments.evaluating import check_score, compare_runs
    from offline_robust.experiments.reporting import save_report
    from offline_robust.reports import summary_table

    request.check()
    reference = check_score(score, runs, request)
    torch.set_num_threads(1)  # one forward of a few dozen rows: more threads only wait for each other
    with writing(folder), progress_bar(quiet or as_json) as bar:
        results = compare_runs(runs, request, progress=bar.evaluation, cells=within(folder, CELLS))
        path = save_report(folder, results, runs, _command(), title, score)
    kept = [str(table) for table in earlier_results(folder)]
    if as_json:
        content = {"report": str(path), "results": str(folder / "results.csv"), "summary": _records(results, reference)}
        content |= {"earlier": kept} if kept else {}
        print(json.dumps(content | ({"score": asdict(reference)} if reference else {}), indent=2, default=str))
    elif not quiet:
        stdout.say(summary_table(results, reference))
        stdout.say(f"report: {path}")
        if kept:
            more = f" and {len(kept) - _NAMED} more" if len(kept) > _NAMED else ""
            stdout.say(f"earlier evaluations, kept: {', '.join(kept[:_NAMED])}{more}")


def _records(results: Any, score: Any = None) -> list[dict[str, Any]]:
    table = results.summary()
    if score is not None:
        for name in ("value", "low", "high"):
            table["score" if name == "value" else f"score_{name}"] = score.score(table[name].to_numpy())
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return rows


def _command() -> str:
    return shlex.join(["offline-robust", *sys.argv[1:]])
