"""Evaluating runs and policies under perturbations, alone or side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from offline_robust.environment import EnvironmentSpec, agree, as_spec, split_module, without
from offline_robust.errors import EvaluationError, nearest
from offline_robust.evaluation import EvaluationRequest, Results, ScoreReference, answer, score_reference
from offline_robust.evaluation.finished import fingerprint
from offline_robust.experiments.config import EvaluationConfig
from offline_robust.experiments.labels import distinct_labels
from offline_robust.experiments.run import Run, load_run
from offline_robust.files import bundled
from offline_robust.networks import Policy, load_policy
from offline_robust.reports.trained_on import data_of, different_data

RunProgress = Callable[[str, int, int, str], None]
"""Called with (run, conditions done, conditions in all, what runs next or how many were there already)."""

POLICY = "policy.safetensors"


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
    request: EvaluationRequest | None = None,
    *,
    progress: RunProgress | None = None,
    label: str | None = None,
    cells: Path | None = None,
    **asked: Any,
) -> Results:
    """Evaluates a run's final policy; what is not asked for comes from the run's own configuration.

    Args:
        run: a run or a policy.
        request: what is asked for, or its fields by name: ``evaluate_run(run, suite="rfqi", episodes=5)``.
        progress: told about every condition.
        label: the learner's name in the table; by default the run's own.
        cells: a folder from whose finished conditions an evaluation that was stopped goes on.
        **asked: fields of an `EvaluationRequest`, over those of ``request``.

    Raises:
        EvaluationError: the suite or perturbation does not fit the environment, or there is no environment.
    """
    request = replace(request or EvaluationRequest(), **asked)
    settings, name = _settings(run), run.name
    environment = environment_of_run(run, request)
    request = request.or_else(settings.suite or "", settings.episodes, settings.seed)
    return answer(
        run.policy,
        replace(request, env=environment, ignore_wrappers=()),
        run=name,
        learner=label or (str(run.meta["label"]) if isinstance(run, Run) else name),
        training_seed=run.config.seed if isinstance(run, Run) else 0,
        progress=None if progress is None else lambda *told: progress(name, *told),
        cells=cells if _keeps_cells(run.policy) else None,
    )


def compare_runs(
    runs: Sequence[Run | PolicyFile],
    request: EvaluationRequest | None = None,
    *,
    progress: RunProgress | None = None,
    cells: Path | None = None,
    **asked: Any,
) -> Results:
    """Evaluates several runs or policies under the same conditions, episodes and streams.

    The first run's own evaluation settings serve for all where nothing else is asked for. Arguments as for
    `evaluate_run`; one folder of ``cells`` serves all runs.

    Raises:
        EvaluationError: runs of different environments.
    """
    request, first = replace(request or EvaluationRequest(), **asked), _settings(runs[0])
    # A policy has no suite of its own: then it is the nominal system alone, whatever the other runs' settings are.
    request = replace(request, suite=request.suite or None).or_else(first.suite or "", first.episodes, first.seed)
    _refuse_differing([(run.name, environment_of_run(run, request)) for run in runs])
    for said in different_data([data_of(run.meta, run.config.dataset) for run in runs if isinstance(run, Run)]):
        warnings.warn(said, stacklevel=2)
    labels = distinct_labels(runs)
    return Results.concat(
        [
            evaluate_run(run, request, progress=progress, label=label, cells=cells)
            for run, label in zip(runs, labels, strict=True)
        ]
    )


def environment_of_run(run: Run | PolicyFile, request: EvaluationRequest) -> EnvironmentSpec:
    """Where a run's policy is evaluated: in the environment of its data, or in the one that is asked for.

    An id that is its own means its own whole: keyword arguments, limit and wrappers.

    Raises:
        EvaluationError: nobody names one, or a wrapper that is to be ignored is not there.
    """
    own, env = run.environment, request.env
    if env is None and own is None:
        raise EvaluationError(f"{run.name}: its data name no environment; name one with --env")
    if isinstance(env, EnvironmentSpec):
        return without(env, request.ignore_wrappers)
    if env is not None and own is not None and split_module(env)[1] != own.id:
        asked = without(as_spec(env, "--env"), request.ignore_wrappers)
        if not own.plain:
            told = f"the data's own is {own}, and none of that is taken over"
            warnings.warn(f"{run.name}: evaluated in {asked} as it is registered; {told}", stacklevel=2)
        return asked
    spec = own or as_spec(str(env), "--env")
    if env is not None and own is not None:
        as_spec(env)  # imports the module that the user named
    return without(spec, request.ignore_wrappers)


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


def check_score(
    name: str | None, runs: Sequence[Run | PolicyFile], request: EvaluationRequest
) -> ScoreReference | None:
    """The score reference of that name for the environment the runs are evaluated in; None where none is named.

    Raises:
        EvaluationError: no such reference, or none for this environment.
    """
    return None if name is None else score_reference(name, str(environment_of_run(runs[0], request)))
