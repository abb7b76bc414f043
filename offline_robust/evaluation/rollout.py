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
from offline_robust.envs import (
    BatchedEnv,
    Condition,
    Levels,
    NoiseLayer,
    Suite,
    System,
    make_batch,
)
from offline_robust.errors import EvaluationError
from offline_robust.evaluation.acting import Act, Acting, Predicting, acting
from offline_robust.evaluation.cells import Cells, Columns
from offline_robust.evaluation.plan import Plan, describe, environment_for, make_plan
from offline_robust.evaluation.results import Results, results_frame
from offline_robust.networks import Policy
from offline_robust.process import one_thread

_ROWS = 512
"""Episodes that run in one batch, about."""

Progress = Callable[[int, int, str], None]
"""Called as ``progress(done, total, label)`` before each batch of conditions and once at the end; first of all, where
some were there already, with words that say so in place of a label."""


def evaluate(
    policy: Acting | Predicting | Act,
    env: str | EnvironmentSpec | None = None,
    *,
    suite: Suite | str | None = None,
    perturb: str | Sequence[str] | None = None,
    episodes: int = 20,
    seed: int = 0,
    env_kwargs: Mapping[str, Any] | None = None,
    run: str = "",
    learner: str = "",
    training_seed: int = 0,
    progress: Progress | None = None,
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
    environment = environment_for(policy, env, env_kwargs)
    env_id = str(environment)
    plan = make_plan(policy, environment, suite, perturb, episodes, seed, max_steps)
    conditions, seeds = plan.conditions, plan.seeds
    kept = None if cells is None else Cells(cells, policy, plan, seed, max_steps)
    columns = _run(policy, plan, seed, max_steps, kept, progress)
    diverged = [c.label for c, found in zip(conditions, columns, strict=True) if not np.isfinite(found["return"]).all()]
    if diverged:
        more = f" and {len(diverged) - 1} more of {len(conditions)} conditions" if len(diverged) > 1 else ""
        raise EvaluationError(
            f"{env_id}, {diverged[0]}{more}: the simulation diverged (the return is not finite); leave such levels out"
        )
    broken = {c.label: int(found["broken"].sum()) for c, found in zip(conditions, columns, strict=True)}
    _tell_broken({label: count for label, count in broken.items() if count}, env_id, episodes)
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
            "episode_seed": np.tile(np.array(seeds), len(conditions)),
            **measured,
        }
    )
    for name, attribute in (("condition", "label"), ("perturbation",) * 2, ("level",) * 2, ("mode",) * 2):
        frame[name] = [getattr(condition, attribute) for condition in conditions for _ in range(episodes)]
    described = describe(plan.suite, conditions, environment, episodes, seed, max_steps)
    described["broken"] = {label: count for label, count in broken.items() if count}
    if not isinstance(policy, Policy):
        described["policy"] = "as given"
    return Results(frame, described, kept.paths(conditions) if kept else ())


def _tell_broken(broken: Mapping[str, int], env_id: str, episodes: int) -> None:
    if broken:
        worst = max(broken, key=lambda label: broken[label])
        more = f", and some in {len(broken) - 1} more conditions" if len(broken) > 1 else ""
        warnings.warn(
            f"{env_id}, {worst}: the simulation broke down in {broken[worst]} of {episodes} episodes{more}; the "
            "physics are too stiff for the time step, so mind these returns",
            stacklevel=3,
        )


def _run(
    policy: Any, plan: Plan, seed: int, max_steps: int | None, kept: Cells | None, progress: Progress | None
) -> list[Columns]:
    """What every condition of the plan gave, in its order; those that are kept are not run again."""
    act = acting(policy)
    conditions = plan.conditions
    columns = kept.read(conditions) if kept else {}
    if progress and columns:
        progress(len(columns), len(conditions), f"{len(columns)} of {len(conditions)} conditions were there already")
    missing = [k for k in range(len(conditions)) if k not in columns]
    with one_thread():
        for chunk in _chunks(missing, len(plan.seeds)):
            if progress:
                progress(len(columns), len(conditions), conditions[chunk[0]].label)
            chosen = [conditions[k] for k in chunk]
            found = run_conditions(act, plan.system, chosen, plan.seeds, seed, max_steps)
            columns.update(zip(chunk, found, strict=True))
            for condition, own in zip(chosen, found, strict=True):
                if kept:
                    kept.write(condition, own)
    if progress:
        progress(len(conditions), len(conditions), "")
    return [columns[k] for k in range(len(conditions))]


def run_conditions(
    act: Act,
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
    count = len(seeds)
    cells = [_Cell(of, condition, seed, count, k * count) for k, condition in enumerate(conditions)]
    batch = make_batch(of, [cell.acting for cell in cells for _ in range(count)])
    try:
        for cell in cells:
            if cell.physics_levels.varied:
                batch.perturb(range(cell.rows.start, cell.rows.stop), cell.physics_levels.at(0).tolist())
        observations = batch.reset([*seeds] * len(cells))
        total = len(observations)
        returns, lengths = np.zeros(total), np.zeros(total, np.int64)
        terminated = np.zeros(total, bool)
        discrete = isinstance(of.action_space, gym.spaces.Discrete)
        executed = np.zeros(total if discrete else (total, *of.action_space.shape), of.action_space.dtype)  # type: ignore[misc]
        step = 0
        while batch.live.any() and (max_steps is None or step < max_steps):
            for cell in cells:
                if batch.live[cell.rows].any():
                    cell.move(batch, step)
                    executed[cell.rows] = cell.act(act, observations[cell.rows], step)
            lengths += batch.live
            observations, rewards, ended, _ = batch.step(executed)
            lost = ~np.isfinite(observations).all(1)
            if lost.any():  # the condition is refused in the end; its neighbours must not suffer
                observations[lost], returns[lost] = 0.0, np.nan
            returns += rewards
            terminated |= ended
            step += 1
        broken = batch.broken
    finally:
        batch.close()
    columns = {"return": returns, "length": lengths, "terminated": terminated, "broken": broken}
    return [{name: column[cell.rows] for name, column in columns.items()} for cell in cells]


class _Cell:
    """The episodes of one condition: their place in the batch, and what lies between them and the policy."""

    def __init__(self, of: System, condition: Condition, seed: int, count: int, first: int) -> None:
        self.rows = slice(first, first + count)
        self.acting, noise = of.physics(condition.perturbations), of.noise(condition.perturbations)
        self.physics_levels = Levels(of, self.acting, seed, range(count))
        self._noise_levels = Levels(of, noise, seed, range(count))
        self._noise = NoiseLayer(of, noise, seed, range(count))
        self._space = of.action_space

    def move(self, batch: BatchedEnv, step: int) -> None:
        """Brings the physics of the live episodes to where they are at this step."""
        if not self.physics_levels.moving:
            return
        levels = self.physics_levels.at(step)
        live = np.flatnonzero(batch.live[self.rows])
        batch.perturb([int(row) + self.rows.start for row in live], levels[live].tolist())

    def act(self, act: Act, observations: NDArray[Any], step: int) -> NDArray[Any]:
        """What is executed at these observations."""
        levels = self._noise_levels.at(step) if self._noise_levels.varied else None
        actions = _actions(act(self._noise.observe(observations, levels)), len(observations), self._space)
        return self._noise.act(actions, levels)


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
