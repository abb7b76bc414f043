"""Evaluating runs under perturbations, alone or side by side, and the reports that come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from offline_robust.envs import Suite, load_suite, suite_from_perturb
from offline_robust.errors import EvaluationError, UserError
from offline_robust.evaluation import Results, ScoreReference, clear_cells, evaluate, score_reference
from offline_robust.experiments.run import Run
from offline_robust.reports import RunRecord, write_report

Progress = Callable[[str, int, int, str], None]
"""Called with (run, conditions done, conditions in all, what runs next or how many were there already)."""

CELLS = "cells"
"""The folder beside results.csv that keeps finished conditions until it is written."""


def evaluate_run(
    run: Run,
    *,
    suite: str | None = None,
    perturb: Sequence[str] = (),
    episodes: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    env: str | None = None,
    label: str | None = None,
    cells: Path | None = None,
) -> Results:
    """Evaluates a run's final policy; what is not given comes from the run's own configuration.

    With a folder for ``cells`` an evaluation that was stopped goes on from its finished conditions.

    Raises:
        EvaluationError: the suite or perturbation does not fit the environment, or there is no environment.
    """
    env_id = env or run.env_id
    if env_id is None:
        raise EvaluationError(f"{run.folder}: the dataset names no environment; name one with --env")
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
        progress=None if progress is None else lambda *told: progress(run.folder.name, *told),
        cells=cells,
    )


def compare_runs(
    runs: Sequence[Run],
    *,
    suite: str | None = None,
    perturb: Sequence[str] = (),
    episodes: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    env: str | None = None,
    cells: Path | None = None,
) -> Results:
    """Evaluates several runs under the same conditions, episodes and streams.

    The first run's own evaluation settings serve for all where nothing else is asked for. ``cells`` as for
    `evaluate_run`; one folder serves all runs.

    Raises:
        EvaluationError: runs of different environments.
    """
    environments = {env or run.env_id for run in runs}
    if len(environments) > 1:
        raise EvaluationError(f"cannot compare runs of different environments: {sorted(map(str, environments))}")
    first = runs[0].config.evaluation
    parts = []
    for run, label in zip(runs, distinct_labels(runs), strict=True):
        parts.append(
            evaluate_run(
                run,
                suite=suite or first.suite,
                perturb=perturb,
                episodes=first.episodes if episodes is None else episodes,
                seed=first.seed if seed is None else seed,
                progress=progress,
                env=env,
                label=label,
                cells=cells,
            )
        )
    return Results.concat(parts)


def distinct_labels(runs: Sequence[Run]) -> list[str]:
    """A label for each run, the same exactly for runs that differ in their seed alone.

    Where one short label would stand for several configurations, what they differ in is added to it.
    """
    settings = [_flat(run) for run in runs]
    labels = [str(run.meta["label"]) for run in runs]
    found = []
    for label, own in zip(labels, settings, strict=True):
        alike = [other for name, other in zip(labels, settings, strict=True) if name == label]
        differing = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        found.append(" ".join([label, *(f"{key.split('.')[-1]}={own[key]}" for key in differing)]))
    if len({(label, run.config.seed) for label, run in zip(found, runs, strict=True)}) < len(runs):
        raise EvaluationError("the same configuration and seed is there twice; compare each run once")
    return found


def _flat(run: Run) -> dict[str, object]:
    """What makes a run's configuration, by dotted key: all but its seed, logging and evaluation."""
    flat: dict[str, object] = {}

    def visit(value: object, path: str) -> None:
        if isinstance(value, dict):
            for key, below in value.items():
                visit(below, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = value

    kept = {k: v for k, v in run.config.to_dict().items() if k not in ("seed", "wandb", "evaluation")}
    visit(kept, "")
    return flat


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


def check_score(name: str | None, runs: Sequence[Run], env: str | None = None) -> ScoreReference | None:
    """The score reference of that name for the environment the runs are evaluated in; None where none is named.

    Raises:
        EvaluationError: no such reference, or none for this environment.
    """
    return None if name is None else score_reference(name, str(env or runs[0].env_id))


def save_report(
    folder: Path,
    results: Results,
    runs: Sequence[Run],
    command: str,
    title: str = "",
    score: str | None = None,
) -> Path:
    """Writes results.csv and report.html into a folder and returns the report's path.

    The cells that these results were put together from are removed once results.csv is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # What `rewrite_report` needs to make the same page again.
    page: dict[str, object] = {"title": title, "command": command, "runs": [str(run.folder.resolve()) for run in runs]}
    results.meta["page"] = page | ({"score": score} if score else {})
    results.save(folder / "results.csv")
    clear_cells(folder / CELLS, results.cells)
    records = [RunRecord.read(run.folder) for run in runs]
    _write(folder, results, records, command, title, score)
    return folder / "report.html"


def rewrite_report(folder: Path, score: str | None = None) -> Path:
    """Writes report.html anew from a folder's results.csv and the runs behind it, those that are still there.

    Args:
        folder: a run's, or one that `compare` wrote.
        score: the name of a reference; by default the one the report had.

    Raises:
        UserError: the folder has no results, or the reference does not fit them.
    """
    if not (folder / "results.csv").is_file():
        raise UserError(f"{folder}: no results.csv; run `offline-robust evaluate` or `compare` first")
    results = Results.read(folder / "results.csv")
    page = results.meta.get("page")
    page = page if isinstance(page, dict) else {}
    named = page.get("runs") if isinstance(page.get("runs"), list) else []
    folders = [Path(str(path)) for path in named or [folder]]
    records = [RunRecord.read(path) for path in folders if (path / "meta.json").is_file()]
    kept = page.get("score")
    name = score or (str(kept) if kept else None)
    _write(folder, results, records, str(page.get("command", "")), str(page.get("title", "")), name)
    return folder / "report.html"


def _write(
    folder: Path, results: Results, records: Sequence[RunRecord], command: str, title: str, score: str | None
) -> None:
    reference = None if score is None else score_reference(score, str(results.frame["env_id"].iloc[0]))
    write_report(folder / "report.html", results, records, command=command, title=title, score=reference)
