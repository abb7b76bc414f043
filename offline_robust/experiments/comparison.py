"""Evaluating runs under perturbations, alone or side by side, and the reports that come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from offline_robust.envs import Suite, load_suite, suite_from_perturb
from offline_robust.errors import EvaluationError, UserError
from offline_robust.evaluation import Results, evaluate
from offline_robust.experiments.run import Run
from offline_robust.reports import RunRecord, write_report

Progress = Callable[[str, int, int], None]
"""Called with (run, conditions done, conditions in all)."""


def evaluate_run(
    run: Run,
    *,
    suite: str | None = None,
    perturb: Sequence[str] = (),
    episodes: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    label: str | None = None,
) -> Results:
    """Evaluates a run's final policy; what is not given comes from the run's own configuration.

    Raises:
        EvaluationError: the suite or perturbation does not fit the environment, or there is no environment.
    """
    env_id = run.env_id
    if env_id is None:
        raise EvaluationError(f"{run.folder}: the dataset names no environment; set `env` in the run's config.yaml")
    settings = run.config.evaluation
    return evaluate(
        run.policy,
        env_id,
        suite=None if perturb else (suite or settings.suite),
        perturb=list(perturb) or None,
        episodes=settings.episodes if episodes is None else episodes,
        seed=settings.seed if seed is None else seed,
        env_kwargs=run.config.env_kwargs,
        run=run.folder.name,
        learner=label or str(run.meta["label"]),
        training_seed=run.config.seed,
        progress=None if progress is None else lambda done, total, _: progress(run.folder.name, done, total),
    )


def compare_runs(
    runs: Sequence[Run],
    *,
    suite: str | None = None,
    perturb: Sequence[str] = (),
    episodes: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Results:
    """Evaluates several runs under the same conditions, episodes and streams.

    The first run's own evaluation settings serve for all where nothing else is asked for.

    Raises:
        EvaluationError: runs of different environments.
    """
    environments = {run.env_id for run in runs}
    if len(environments) > 1:
        raise EvaluationError(f"cannot compare runs of different environments: {sorted(map(str, environments))}")
    first = runs[0].config.evaluation
    twice = {pair for pair, count in Counter((run.meta["label"], run.config.seed) for run in runs).items() if count > 1}
    parts = []
    for run in runs:
        label = str(run.meta["label"])
        if any(label == repeated for repeated, _ in twice):
            label += f" ({run.folder.name})"
        parts.append(
            evaluate_run(
                run,
                suite=suite or first.suite,
                perturb=perturb,
                episodes=first.episodes if episodes is None else episodes,
                seed=first.seed if seed is None else seed,
                progress=progress,
                label=label,
            )
        )
    return Results.concat(parts)


def check_conditions(suite: str | None, perturb: Sequence[str]) -> Suite | None:
    """Reads what was asked for before anything long starts.

    Raises:
        EvaluationError: unknown suite or malformed perturbation, or both at once.
    """
    if suite and perturb:
        raise EvaluationError("give --suite or --perturb, not both")
    if suite:
        return load_suite(suite)
    return suite_from_perturb(list(perturb)) if perturb else None


def save_report(folder: Path, results: Results, runs: Sequence[Run], command: str, title: str = "") -> Path:
    """Writes results.csv and report.html into a folder and returns the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    results.save(folder / "results.csv")
    records = [RunRecord.read(run.folder) for run in runs]
    write_report(folder / "report.html", results, records, command=command, title=title)
    return folder / "report.html"


def rewrite_report(folder: Path, command: str) -> Path:
    """Writes report.html anew from a folder's results.csv and the runs in or below it.

    Raises:
        UserError: the folder has no results.
    """
    if not (folder / "results.csv").is_file():
        raise UserError(f"{folder}: no results.csv; run `offline-robust evaluate` or `compare` first")
    results = Results.read(folder / "results.csv")
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    records = [RunRecord.read(path) for path in folders if (path / "meta.json").is_file()]
    write_report(folder / "report.html", results, records, command=command)
    return folder / "report.html"
