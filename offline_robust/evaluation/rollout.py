"""A policy against a suite of perturbations: all episodes of a condition advance together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.environment import EnvironmentSpec
from offline_robust.envs import Condition, Perturbation, Stages, Suite, System, make_batch
from offline_robust.errors import EvaluationError
from offline_robust.evaluation.acting import Act, Acting, Predicting, acting
from offline_robust.evaluation.finished import Columns, FinishedConditions
from offline_robust.evaluation.plan import EPISODES, Plan, describe, make_plan
from offline_robust.evaluation.request import EvaluationRequest
from offline_robust.evaluation.results import Results, results_frame
from offline_robust.networks import Policy
from offline_robust.process import one_thread

_ROWS = 512
"""Episodes that run in one batch, about."""

ConditionProgress = Callable[[int, int, str], None]
"""Called as ``progress(done, total, label)`` before each batch of conditions and once at the end; first of all, where
some were there already, with words that say so in place of a label."""


def evaluate(
    policy: Acting | Predicting | Act,
    env: str | EnvironmentSpec | None = None,
    *,
    suite: Suite | str | None = None,
    perturb: str | Sequence[str] | None = None,
    stages: str | Perturbation | Sequence[str | Perturbation] | None = None,
    episodes: int = EPISODES,
    seed: int = 0,
    env_kwargs: Mapping[str, Any] | None = None,
    run: str = "",
    learner: str = "",
    training_seed: int = 0,
    progress: ConditionProgress | None = None,
    max_steps: int | None = None,
    cells: str | Path | None = None,
) -> Results:
    """Runs a policy under every condition of a suite.

    Episode k starts in the same state under every condition, and for every policy evaluated with the same seed; the
    noise of one kind in episode k is one fixed sequence of draws that the level only scales. So conditions and
    policies can be compared episode by episode, and adding one changes no other number. Returns are undiscounted
    sums of the environment's own reward, whatever noise the policy was shown.

    Args:
        policy: anything with ``act(observations) -> actions`` or ``predict`` (a model of Stable-Baselines3, asked for
            deterministic actions; d3rlpy's), or a plain function; called once per step with all episodes of a
            condition (N, O), the ended ones included with their last observation.
        env: the environment, an id or an `EnvironmentSpec`; None, and an id alone that is the policy's own, mean the
            one the policy was made for, with its keyword arguments, limit and wrappers. Observations that Gymnasium can
            flatten reach the policy as vectors.
        suite: a `Suite`, the name of a bundled one, or a YAML file; None with no ``perturb`` is the nominal system.
        perturb: texts such as ``length=0.5:1.5:11`` in place of a suite; several form a grid.
        stages: what stands between system and policy under every condition, see `EvaluationRequest`.
        episodes: per condition.
        seed: of start states and noise.
        env_kwargs: keyword arguments of the environment, in place of those that it would have.
        run: names the training in the table.
        learner: names the learner in the table.
        training_seed: the seed the policy was trained with.
        progress: told about every condition.
        max_steps: cuts episodes; needed where the environment has no time limit.
        cells: a folder where every finished condition is kept, so that an evaluation that was stopped goes on where it
            was; only for a `Policy` of this library. `clear_cells` removes them once the results are saved.

    Raises:
        EvaluationError: anything of the above does not fit; nothing is run before everything that can be checked is.
    """
    request = EvaluationRequest(
        suite=suite,
        perturb=perturb,
        stages=stages,
        episodes=episodes,
        seed=seed,
        env=env,
        env_kwargs=env_kwargs,
        max_steps=max_steps,
    )
    return answer(
        policy, request, run=run, learner=learner, training_seed=training_seed, progress=progress, cells=cells
    )


def answer(
    policy: Acting | Predicting | Act,
    request: EvaluationRequest,
    *,
    run: str = "",
    learner: str = "",
    training_seed: int = 0,
    progress: ConditionProgress | None = None,
    cells: str | Path | None = None,
) -> Results:
    """The table of one request; arguments, errors and what comes of it are those of `evaluate`."""
    plan = make_plan(policy, request)
    conditions, episodes, env_id = plan.conditions, plan.episodes, str(plan.system.environment)
    kept = None if cells is None else FinishedConditions(cells, policy, plan)
    columns = _run(policy, plan, kept, progress)
    diverged = [c.label for c, found in zip(conditions, columns, strict=True) if not np.isfinite(found["return"]).all()]
    if diverged:
        more = f" and {len(diverged) - 1} more of {len(conditions)} conditions" if len(diverged) > 1 else ""
        raise EvaluationError(
            f"{env_id}, {diverged[0]}{more}: the simulation diverged (the return is not finite); leave such levels out"
        )
    measured = {name: np.concatenate([c[name] for c in columns]) for name in ("return", "length", "terminated")}
    frame = results_frame(
        {
            "run": run,
            "learner": learner,
            "training_seed": training_seed,
            "env_id": env_id,
            **dict.fromkeys(("condition", "perturbation", "level", "mode"), ""),
            "nominal": np.repeat([condition.nominal for condition in conditions], episodes),
            "episode": np.tile(np.arange(episodes), len(conditions)),
            "episode_seed": np.tile(np.array(plan.seeds), len(conditions)),
            **measured,
        }
    )
    for name, attribute in (("condition", "label"), ("perturbation",) * 2, ("level",) * 2, ("mode",) * 2):
        frame[name] = [getattr(condition, attribute) for condition in conditions for _ in range(episodes)]
    broken = {c.label: int(found["broken"].sum()) for c, found in zip(conditions, columns, strict=True)}
    broken = {label: count for label, count in broken.items() if count}
    _tell_broken(broken, env_id, episodes)
    described = describe(plan) | {"broken": broken} | ({} if isinstance(policy, Policy) else {"policy": "as given"})
    return Results(frame, described, kept.paths() if kept else ())


def _tell_broken(broken: Mapping[str, int], env_id: str, episodes: int) -> None:
    if broken:
        worst = max(broken, key=lambda label: broken[label])
        more = f", and some in {len(broken) - 1} more conditions" if len(broken) > 1 else ""
        warnings.warn(
            f"{env_id}, {worst}: the simulation broke down in {broken[worst]} of {episodes} episodes{more}; the "
            "physics are too stiff for the time step, so mind these returns",
            stacklevel=3,
        )


def _run(policy: Any, plan: Plan, kept: FinishedConditions | None, progress: ConditionProgress | None) -> list[Columns]:
    """What every condition of the plan gave, in its order; those that are kept are not run again."""
    conditions = plan.conditions
    columns = kept.read() if kept else {}
    if progress and columns:
        progress(len(columns), len(conditions), f"{len(columns)} of {len(conditions)} conditions were there already")
    missing = [k for k in range(len(conditions)) if k not in columns]
    with one_thread():
        for chunk in _chunks(missing, plan.episodes):
            if progress:
                progress(len(columns), len(conditions), conditions[chunk[0]].label)
            chosen = [conditions[k] for k in chunk]
            found = run_conditions(policy, plan.system, chosen, plan.seeds, plan.seed, plan.request.max_steps)
            for position, own in zip(chunk, found, strict=True):
                columns[position] = own
                if kept:
                    kept.write(position, own)
    if progress:
        progress(len(conditions), len(conditions), "")
    return [columns[k] for k in range(len(conditions))]


def run_conditions(
    policy: Acting | Predicting | Act,
    of: System,
    conditions: Sequence[Condition],
    seeds: Sequence[int],
    seed: int = 0,
    max_steps: int | None = None,
) -> list[Columns]:
    """One episode per seed under every condition, all advancing together in one batched environment.

    The policy is called once per step for each condition, with all its episodes, so that what happens under one
    condition is the same to the last bit whichever others run beside it.

    Returns:
        For each condition the undiscounted returns (N,), the lengths in steps (N,), whether each episode terminated
        (N,), and in which the simulator broke (N,), see `BatchedEnv.broken`.

    Raises:
        EvaluationError: the policy's actions do not fit the action space.
    """
    act, count = acting(policy), len(seeds)
    rows = [slice(k * count, (k + 1) * count) for k in range(len(conditions))]
    stages = [Stages(of, condition.perturbations, seed, range(count), policy) for condition in conditions]
    batch = make_batch(of, [own.physics for own in stages for _ in range(count)])
    try:
        for own, its in zip(stages, rows, strict=True):
            own.start(batch, its)
        observations = batch.reset([*seeds] * len(stages))
        total, space = len(observations), of.action_space
        returns, lengths = np.zeros(total), np.zeros(total, np.int64)
        terminated = np.zeros(total, bool)
        discrete = isinstance(space, gym.spaces.Discrete)
        executed = np.zeros(total if discrete else (total, *space.shape), space.dtype)  # type: ignore[misc]
        step = 0
        while batch.live.any() and (max_steps is None or step < max_steps):
            for own, its in zip(stages, rows, strict=True):
                if batch.live[its].any():
                    seen = own.observe(observations[its])
                    executed[its] = own.act(_actions(act(seen), count, space))
            lengths += batch.live
            observations, rewards, ended, _ = batch.step(executed)
            lost = ~np.isfinite(observations).all(1)
            if lost.any():  # the condition is refused in the end; its neighbours must not suffer
                observations[lost], returns[lost] = 0.0, np.nan
            returns += rewards
            terminated |= ended
            step += 1
        columns = {"return": returns, "length": lengths, "terminated": terminated, "broken": batch.broken}
    finally:
        batch.close()
    return [{name: column[its] for name, column in columns.items()} for its in rows]


def _chunks(conditions: Sequence[int], episodes: int) -> Iterator[Sequence[int]]:
    """Conditions that run together: enough rows for the engine, few enough for memory and for frequent results."""
    size = max(1, _ROWS // episodes)
    for first in range(0, len(conditions), size):
        yield conditions[first : first + size]


def _actions(raw: Any, count: int, space: gym.Space[Any]) -> NDArray[Any]:
    """The policy's answer as an array the batch can take, or a clear refusal."""
    actions = np.asarray(raw.detach().cpu() if hasattr(raw, "detach") else raw)
    if isinstance(space, gym.spaces.Discrete):
        if actions.shape != (count,) or not np.issubdtype(actions.dtype, np.integer):
            raise EvaluationError(
                f"the policy must return {count} whole numbers for this discrete action space, "
                f"got {actions.dtype} of shape {actions.shape}"
            )
        if (actions < space.start).any() or (actions >= space.start + space.n).any():
            raise EvaluationError(f"an action is outside {space.start}..{space.start + space.n - 1}")
        return actions
    expected = (count, *(space.shape or ()))
    if actions.shape != expected or not np.issubdtype(actions.dtype, np.floating):
        raise EvaluationError(
            f"the policy returns {actions.dtype} actions of shape {actions.shape}, the environment takes "
            f"floating-point ones of shape {expected}"
        )
    if not np.isfinite(actions).all():
        raise EvaluationError("the policy returns NaN or infinite actions")
    return actions.astype(space.dtype, copy=False)
