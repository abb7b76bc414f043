"""Evaluating runs under perturbations, alone or side by side, and the reports that come of it."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from offline_robust.environment import EnvironmentSpec, agree, as_spec, split_module, without
from offline_robust.envs import Suite, load_suite, suite_from_perturb, system
from offline_robust.errors import EvaluationError, UserError, nearest
from offline_robust.evaluation import Results, ScoreReference, clear_cells, evaluate, score_reference
from offline_robust.evaluation.cells import fingerprint
from offline_robust.evaluation.results import meta_path
from offline_robust.experiments.config import EvaluationConfig, WandbConfig
from offline_robust.experiments.earlier import earlier_results, place_of, save_results
from offline_robust.experiments.labels import distinct_labels
from offline_robust.experiments.publishing import log_evaluation, log_report
from offline_robust.experiments.run import Run, load_run
from offline_robust.experiments.tracking import group_of
from offline_robust.files import bundled
from offline_robust.locks import writing
from offline_robust.networks import Policy, load_policy
from offline_robust.reports import RunRecord, write_reports
from offline_robust.reports.page import Report
from offline_robust.reports.records import record_digest
from offline_robust.reports.trained_on import data_of, different_data
from offline_robust.untrusted import within

Progress = Callable[[str, int, int, str], None]
"""Called with (run, conditions done, conditions in all, what runs next or how many were there already)."""

CELLS = "cells"
"""The folder beside results.csv that keeps finished conditions until it is written."""


POLICY = "policy.safetensors"
_MAX_PATH = 4_096


@dataclass(frozen=True)
class PolicyFile:
    """A policy without a run behind it: of a file, or one of the bundled behaviour policies.

    Attributes:
        name: what tables call it.
        policy: the policy.
        evaluation: how it is evaluated where nothing is asked for.
    """

    name: str
    policy: Policy
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def environment(self) -> EnvironmentSpec | None:
        """The environment it was made for."""
        return self.policy.spec.environment


def open_subject(name: str | Path) -> Run | PolicyFile:
    """What can be evaluated: a run's folder, a policy file, or a bundled behaviour policy by name.

    Raises:
        CheckpointError: the folder or the file is not one, or damaged.
        ConfigError: the run's configuration is not valid.
        EvaluationError: nothing of that name.
    """
    path = Path(name)
    known = sorted(found.parent.name for found in bundled("models").glob(f"*/{POLICY}"))
    if path.is_dir() and (path / POLICY).is_file() and not (path / "config.yaml").exists():
        path = path / POLICY  # a bundled policy's folder, or one like it
    if not path.exists() and str(name) in known:
        path = bundled("models") / str(name) / POLICY
    if path.suffix == ".safetensors":
        return PolicyFile(path.resolve().parent.name if path.name == POLICY else path.stem, load_policy(path))
    if not path.exists():
        hint = nearest(str(name)[:80], known)
        raise EvaluationError(f"{str(name)[:200]}: no such run's folder, policy file or bundled policy{hint}")
    return load_run(path)


def evaluate_run(
    run: Run | PolicyFile,
    *,
    suite: str | None = None,
    perturb: Sequence[str] = (),
    episodes: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    env: str | None = None,
    label: str | None = None,
    cells: Path | None = None,
    max_steps: int | None = None,
    ignore_wrappers: Sequence[str] = (),
) -> Results:
    """Evaluates a run's final policy; what is not given comes from the run's own configuration.

    The suite "" is the nominal system alone.

    With a folder for ``cells`` an evaluation that was stopped goes on from its finished conditions. Several suites,
    separated by commas, are evaluated as one; what they have in common is run once.

    Raises:
        EvaluationError: the suite or perturbation does not fit the environment, or there is no environment.
    """
    settings, name = _settings(run), run.name
    environment = environment_of_run(run, env, ignore_wrappers)
    return evaluate(
        run.policy,
        environment,
        suite=None if perturb else _suite(settings.suite if suite is None else suite, environment),
        perturb=list(perturb) or None,
        episodes=settings.episodes if episodes is None else episodes,
        seed=settings.seed if seed is None else seed,
        max_steps=max_steps,
        run=name,
        learner=label or (str(run.meta["label"]) if isinstance(run, Run) else name),
        training_seed=run.config.seed if isinstance(run, Run) else 0,
        progress=None if progress is None else lambda *told: progress(name, *told),
        cells=cells if _keeps_cells(run.policy) else None,
    )


def compare_runs(
    runs: Sequence[Run | PolicyFile],
    *,
    suite: str | None = None,
    perturb: Sequence[str] = (),
    episodes: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    env: str | None = None,
    cells: Path | None = None,
    max_steps: int | None = None,
    ignore_wrappers: Sequence[str] = (),
) -> Results:
    """Evaluates several runs or policies under the same conditions, episodes and streams.

    The first run's own evaluation settings serve for all where nothing else is asked for. ``cells`` as for
    `evaluate_run`; one folder serves all runs.

    Raises:
        EvaluationError: runs of different environments.
    """
    _refuse_differing([(run.name, environment_of_run(run, env, ignore_wrappers)) for run in runs])
    first = _settings(runs[0])
    for said in different_data([data_of(run.meta, run.config.dataset) for run in runs if isinstance(run, Run)]):
        warnings.warn(said, stacklevel=2)
    parts = []
    for run, label in zip(runs, distinct_labels(runs), strict=True):
        parts.append(
            evaluate_run(
                run,
                suite=suite or first.suite or "",  # the nominal system alone, whatever the run's own settings
                perturb=perturb,
                episodes=first.episodes if episodes is None else episodes,
                seed=first.seed if seed is None else seed,
                progress=progress,
                env=env,
                label=label,
                cells=cells,
                max_steps=max_steps,
                ignore_wrappers=ignore_wrappers,
            )
        )
    return Results.concat(parts)


def environment_of_run(
    run: Run | PolicyFile, env: str | None = None, ignore_wrappers: Sequence[str] = ()
) -> EnvironmentSpec:
    """Where a run's policy is evaluated: in the environment of its data, or in the one that the user names.

    An id that is its own means its own whole: keyword arguments, limit and wrappers.

    Raises:
        EvaluationError: nobody names one, or a wrapper that is to be ignored is not there.
    """
    own = run.environment
    if env is None and own is None:
        raise EvaluationError(f"{run.name}: its data name no environment; name one with --env")
    if env is not None and own is not None and split_module(env)[1] != own.id:
        asked = without(as_spec(env, "--env"), ignore_wrappers)
        if not own.plain:
            told = f"the data's own is {own}, and none of that is taken over"
            warnings.warn(f"{run.name}: evaluated in {asked} as it is registered; {told}", stacklevel=2)
        return asked
    spec = own or as_spec(str(env), "--env")
    if env is not None and own is not None:
        as_spec(env)  # imports the module that the user named
    return without(spec, ignore_wrappers)


def _refuse_differing(named: Sequence[tuple[str, EnvironmentSpec]]) -> None:
    (first, own), *others = named
    for name, spec in others:
        if difference := agree(replace(own, source=first), replace(spec, source=name)):
            raise EvaluationError(f"cannot compare runs of different environments: {difference}")


def _settings(run: Run | PolicyFile) -> EvaluationConfig:
    return run.config.evaluation if isinstance(run, Run) else run.evaluation


def _keeps_cells(policy: object) -> bool:
    """Whether finished conditions of this policy can be told from another's."""
    try:
        fingerprint(policy)
    except EvaluationError:
        return False
    return True


def _suite(names: str | None, environment: EnvironmentSpec) -> Suite | str | None:
    """The suite of that name; several, separated by commas, become one for this environment."""
    if not names or "," not in names:
        return names or None
    suites = _suites(names)
    of = system(environment)
    conditions = {condition.label: condition for suite in suites for condition in suite.for_system(of)}
    sources = "; ".join(dict.fromkeys(suite.source for suite in suites if suite.source))
    together = ", ".join(suite.name for suite in suites)
    return Suite.of(together, conditions.values(), source=sources, inert=any(suite.inert for suite in suites))


def _suites(names: str) -> list[Suite]:
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if names and not chosen:
        raise EvaluationError(f"suite {names[:80]!r} names none: offline-robust suites lists them")
    return [load_suite(name) for name in chosen]


def suites_digest(names: str | None) -> str:
    """A hash of what the named suites hold, "" where none is named: a file may change under its name."""
    return hashlib.sha256(repr(_suites(names)).encode()).hexdigest() if names else ""


def check_suites(names: str | None, environment: EnvironmentSpec | None = None) -> None:
    """Reads the suites that are named, several separated by commas, and fits them to an environment where one is named.

    Raises:
        EvaluationError: there is no such suite or environment, or one does not fit the other.
    """
    suites = _suites(names or "")
    if environment is not None:
        of = system(environment)
        for suite in suites:
            suite.for_system(of)


def check_conditions(suite: str | None, perturb: Sequence[str]) -> None:
    """Reads what was asked for before anything long starts.

    Raises:
        EvaluationError: unknown suite or malformed perturbation, or both at once.
    """
    if suite and perturb:
        raise EvaluationError("give --suite or --perturb, not both")
    check_suites(suite)
    if perturb:
        suite_from_perturb(list(perturb))


def check_score(
    name: str | None, runs: Sequence[Run | PolicyFile], env: str | None = None, ignore_wrappers: Sequence[str] = ()
) -> ScoreReference | None:
    """The score reference of that name for the environment the runs are evaluated in; None where none is named.

    Raises:
        EvaluationError: no such reference, or none for this environment.
    """
    return None if name is None else score_reference(name, str(environment_of_run(runs[0], env, ignore_wrappers)))


def save_report(
    folder: Path,
    results: Results,
    runs: Sequence[Run | PolicyFile],
    command: str,
    title: str = "",
    score: str | None = None,
    wandb: WandbConfig | None = None,
) -> Path:
    """Writes results.csv and the report (report.html, report.md, figures, tables) into a folder.

    The table of another question that was the latest until now is kept beside it, see `earlier`.

    The report also goes to Weights & Biases where ``wandb`` (by default the first run's configuration) asks for it, and
    a single run's evaluation into that run.

    Returns:
        The path of report.html.

    The cells that these results were put together from are removed once results.csv is there.

    Raises:
        FolderInUse: another process or thread writes into the folder.
    """
    # What `rewrite_report` needs to make the same page again.
    folders = [run.folder.resolve() for run in runs if isinstance(run, Run)]
    page: dict[str, object] = {"title": title, "command": command, "runs": [str(path) for path in folders]}
    page["digests"] = [record_digest(path) for path in folders]
    results.meta["page"] = page | ({"score": score} if score else {})
    with writing(folder):
        save_results(folder, results)
        clear_cells(folder / CELLS, results.cells)
        records = [RunRecord.read(path) for path in folders]
        report = _write(folder, results, records, command, title, score)
        trained = [run for run in runs if isinstance(run, Run)]
        if trained:
            groups = [group_of(run.config, str(run.meta["label"]), data_of(run.meta)[1]) for run in trained]
            if len(runs) == 1 and folder.resolve() == trained[0].folder.resolve():
                log_run_evaluation(trained[0], results)
            log_report(wandb or trained[0].config.wandb, folder, report, list(dict.fromkeys(groups)), title)
    return folder / "report.html"


def log_run_evaluation(run: Run, results: Results) -> None:
    """Logs a run's evaluation into its Weights & Biases run, where its configuration asks for W&B."""
    log_evaluation(run.config, run.folder, str(run.meta["label"]), str(run.environment), results)


def rewrite_report(folder: Path, score: str | None = None, outside: bool = False) -> Path:
    """Writes the report anew from a folder's results.csv and the runs behind it, those that are still there.

    The folder may come from anyone, and what it names must not put other files of this computer into a page that is
    passed on: a run that lies outside it is read where it is what `compare` saw.

    Args:
        folder: a run's, or one that `compare` wrote; or a table that is kept in one, whose report lies beside it.
        score: the name of a reference; by default the one the report had.
        outside: read runs outside the folder whatever they hold by now.

    Returns:
        The path of report.html.

    Raises:
        UserError: the folder has no results, or the reference does not fit them.
        FolderInUse: another process or thread writes into the folder.
    """
    table, out, owner = place_of(folder)
    for path in (table, meta_path(table), out):
        within(owner, str(path.relative_to(owner)))
    if not table.is_file():
        raise UserError(f"{folder}: no results.csv; run `offline-robust evaluate` or `compare` first")
    with writing(out):
        return _rewrite(table, out, owner, score, outside)


def _rewrite(table: Path, out: Path, owner: Path, score: str | None, outside: bool) -> Path:
    results = Results.read(table)
    page = results.meta.get("page")
    page = page if isinstance(page, dict) else {}
    folders = _runs_behind(owner, page, outside)
    records = [RunRecord.read(path) for path in folders if (path / "meta.json").is_file()]
    kept = page.get("score")
    name = score or (str(kept) if kept else None)
    _write(out, results, records, str(page.get("command", "")), str(page.get("title", "")), name)
    return out / "report.html"


def _runs_behind(folder: Path, page: Mapping[str, Any], outside: bool) -> list[Path]:
    """The run folders that a report names: those inside its own, and those outside that are what it was made from."""
    if (folder / "meta.json").exists():  # a run's own folder, wherever it was when its page was written
        return [folder]
    named, digests = (value if isinstance(value := page.get(key), list) else [] for key in ("runs", "digests"))
    found = []
    for place, name in enumerate(named):
        path = Path(str(name).replace("\0", "")[:_MAX_PATH])
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
        known = digests[place] if place < len(digests) else None
        if inside or outside or not path.is_dir() or known == record_digest(path):
            found.append(path)
            continue
        warnings.warn(
            f"{path}: left out of the report, for it lies outside {folder} and is not what that was made from; "
            "--outside reads it",
            stacklevel=3,
        )
    return found


def _write(
    folder: Path, results: Results, records: Sequence[RunRecord], command: str, title: str, score: str | None
) -> Report:
    environments = [str(env_id) for env_id in results.frame["env_id"].unique()]
    references = None if score is None else {env_id: score_reference(score, env_id) for env_id in environments}
    kept = [str(path.relative_to(folder)) for path in earlier_results(folder)]
    results = replace(results, meta=results.meta | {"earlier": kept})
    return write_reports(folder, results, records, command=command, title=title, score=references)
