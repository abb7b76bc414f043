"""A policy against a suite of perturbations: all episodes of a condition advance together."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs import (
    BatchedEnv,
    Condition,
    NoiseLayer,
    Suite,
    load_suite,
    make_batch,
    make_env,
    nominal_values,
    parameters_for,
    resolve,
    suite_from_perturb,
)
from offline_robust.errors import EvaluationError
from offline_robust.evaluation.results import Results, results_frame
from offline_robust.networks import PolicySpec

_PACKAGES = ("offline-robust", "numpy", "torch", "gymnasium", "mujoco")

Act = Callable[[NDArray[Any]], Any]
Progress = Callable[[int, int, str], None]
"""Called as ``progress(done, total, label)`` before each condition and once at the end."""


class Acting(Protocol):
    """What evaluation needs of a policy."""

    def act(self, observations: NDArray[Any]) -> Any:
        """Actions (N, A), or (N,) of integers, for observations (N, O)."""


def evaluate(
    policy: Acting | Act,
    env_id: str,
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
) -> Results:
    """Runs a policy under every condition of a suite.

    Episode k starts in the same state under every condition, and for every policy evaluated with the same seed; the
    noise of one kind in episode k is one fixed sequence of draws that the level only scales. So conditions and
    policies can be compared episode by episode, and adding one changes no other number. Returns are undiscounted
    sums of the environment's own reward, whatever noise the policy was shown.

    Args:
        policy: anything with ``act(observations) -> actions``, or a plain function; called once per step with all
            episodes of a condition (N, O), the ended ones included with their last observation.
        env_id: a registered Gymnasium id with flat Box observations and flat Box or Discrete actions.
        suite: a `Suite`, the name of a bundled one, or a YAML file; None with no ``perturb`` is the nominal system.
        perturb: texts such as ``length=0.5:1.5:11`` in place of a suite; several form a grid.
        episodes: per condition.
        seed: of start states and noise.
        env_kwargs: passed to `gymnasium.make`.
        run: names the training in the table.
        learner: names the learner in the table.
        training_seed: the seed the policy was trained with.
        progress: told about every condition.
        max_steps: cuts episodes; needed where the environment has no time limit.

    Raises:
        EvaluationError: anything of the above does not fit; nothing is run before everything that can be checked is.
    """
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0), ("max_steps", max_steps, 1)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise EvaluationError(f"{name} must be a whole number of at least {least}, got {value!r}")
    env = make_env(env_id, env_kwargs)
    observation_space, action_space = env.observation_space, env.action_space
    nominal, spec = nominal_values(env, env_id), env.spec
    env.close()  # type: ignore[no-untyped-call]
    observation_space = _check_spaces(env_id, observation_space, action_space)
    _check_policy(policy, env_id, observation_space, action_space)
    if max_steps is None and (spec is None or spec.max_episode_steps is None):
        raise EvaluationError(f"{env_id} has no time limit: give max_steps")

    ready = _suite(suite, perturb).for_env(env_id, nominal)
    values = [_split(condition, env_id, nominal) for condition in ready.conditions]
    for _, noise in values:
        # Built for no episodes: refuses what does not fit before the first condition runs.
        NoiseLayer(noise, seed, (), observation_space, action_space)

    seeds = [int(np.random.SeedSequence([seed, k, 0]).generate_state(1)[0]) for k in range(episodes)]
    act: Act = getattr(policy, "act", policy)  # type: ignore[arg-type]
    columns: list[dict[str, Any]] = []
    batch: BatchedEnv | None = None
    physics_before: dict[str, float] = {}
    try:
        for k, (condition, (physics, noise)) in enumerate(zip(ready.conditions, values, strict=True)):
            if progress:
                progress(k, len(values), condition.label)
            if batch is None or physics != physics_before:
                if batch is not None:
                    batch.close()
                batch, physics_before = make_batch(env_id, [physics] * episodes, env_kwargs), physics
            layer = NoiseLayer(noise, seed, range(episodes), observation_space, action_space)
            returns, lengths, terminated = rollout(act, batch, layer, seeds, action_space, max_steps)
            if not np.isfinite(returns).all():
                raise EvaluationError(
                    f"{env_id}, {condition.label}: the simulation diverged (the return is not finite)"
                )
            columns.append({"return": returns, "length": lengths, "terminated": terminated})
    finally:
        if batch is not None:
            batch.close()
    if progress:
        progress(len(values), len(values), "")

    measured = {name: np.concatenate([c[name] for c in columns]) for name in ("return", "length", "terminated")}
    frame = results_frame(
        {
            "run": run,
            "learner": learner,
            "training_seed": training_seed,
            "env_id": env_id,
            **dict.fromkeys(("condition", "perturbation", "level", "mode"), ""),
            "nominal": np.repeat([condition.nominal for condition in ready.conditions], episodes),
            "episode": np.tile(np.arange(episodes), len(values)),
            "episode_seed": np.tile(np.array(seeds), len(values)),
            **measured,
        }
    )
    for name, attribute in (("condition", "label"), ("perturbation",) * 2, ("level",) * 2, ("mode",) * 2):
        frame[name] = [getattr(condition, attribute) for condition in ready.conditions for _ in range(episodes)]
    return Results(frame, _meta(ready, env_id, env_kwargs, episodes, seed, max_steps))


def rollout(
    act: Act,
    batch: BatchedEnv,
    noise: NoiseLayer,
    seeds: Sequence[int],
    action_space: gym.Space[Any],
    max_steps: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """One episode per seed, all together, with one call of the policy per step.

    Returns:
        Undiscounted returns (N,), lengths in steps (N,), and whether each episode terminated (N,).

    Raises:
        EvaluationError: the policy's actions do not fit the action space.
    """
    observations = batch.reset(seeds)
    returns = np.zeros(len(seeds))
    lengths = np.zeros(len(seeds), np.int64)
    terminated = np.zeros(len(seeds), bool)
    steps = 0
    while batch.live.any() and (max_steps is None or steps < max_steps):
        actions = _actions(act(noise.observe(observations)), len(seeds), action_space)
        lengths += batch.live
        observations, rewards, ended, _ = batch.step(noise.act(actions))
        returns += rewards
        terminated |= ended
        steps += 1
    return returns, lengths, terminated


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


def _check_spaces(env_id: str, observations: gym.Space[Any], actions: gym.Space[Any]) -> gym.spaces.Box:
    if not isinstance(observations, gym.spaces.Box) or len(observations.shape) != 1:
        raise EvaluationError(f"{env_id}: observations must be a flat Box, got {observations}")
    flat = isinstance(actions, gym.spaces.Box) and len(actions.shape) == 1
    if not flat and not isinstance(actions, gym.spaces.Discrete):
        raise EvaluationError(f"{env_id}: actions must be a flat Box or Discrete, got {actions}")
    return observations


def _check_policy(policy: Any, env_id: str, observations: gym.spaces.Box, actions: gym.Space[Any]) -> None:
    if not callable(getattr(policy, "act", policy)):
        raise EvaluationError(f"a policy is a function or has .act(observations), got {type(policy).__name__}")
    spec = getattr(policy, "spec", None)
    if not isinstance(spec, PolicySpec):
        return
    if spec.observation_dim != observations.shape[0]:
        raise EvaluationError(
            f"the policy takes {spec.observation_dim} observations ({spec.env_id or 'unknown environment'}), "
            f"{env_id} gives {observations.shape[0]}"
        )
    if not isinstance(actions, gym.spaces.Box) or spec.action_dim != actions.shape[0]:
        raise EvaluationError(f"the policy gives {spec.action_dim} continuous actions, {env_id} takes {actions}")


def _suite(suite: Suite | str | None, perturb: str | Sequence[str] | None) -> Suite:
    if suite is not None and perturb:
        raise EvaluationError("give a suite or perturbations, not both")
    if perturb:
        return suite_from_perturb(perturb)
    if suite is None:
        return Suite("nominal", (Condition((), nominal=True),))
    return suite if isinstance(suite, Suite) else load_suite(suite)


def _split(
    condition: Condition, env_id: str, nominal: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Resolved values of a condition: what acts inside the simulation, and the noise outside it."""
    known = parameters_for(env_id)
    values = resolve(condition.perturbations, env_id, nominal)
    physics = {name: value for name, value in values.items() if known[name].target == "physics"}
    return physics, {name: value for name, value in values.items() if name not in physics}


def _meta(
    suite: Suite,
    env_id: str,
    env_kwargs: Mapping[str, Any] | None,
    episodes: int,
    seed: int,
    max_steps: int | None,
) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "env_id": env_id,
        "env_kwargs": dict(env_kwargs or {}),
        "suite": suite.name,
        "suite_source": suite.source,
        "conditions": len(suite.conditions),
        "episodes": episodes,
        "seed": seed,
        "max_steps": max_steps,
        "policy": "deterministic",
        "checkpoint": "last",
        "versions": versions,
    }
