"""What one evaluation will run, checked before anything does."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np

from offline_robust.environment import EnvironmentSpec, as_spec
from offline_robust.environment.spec import plain_values
from offline_robust.envs import (
    Condition,
    NoiseLayer,
    Perturbation,
    Suite,
    System,
    load_suite,
    suite_from_perturb,
    system,
    without_effect,
)
from offline_robust.errors import EvaluationError
from offline_robust.evaluation.acting import acting, check_spaces
from offline_robust.networks import PolicySpec
from offline_robust.process import versions

_STARTS = zlib.crc32(b"evaluation starts")
"""Keeps the start states of an evaluation apart from those that collection draws from the same seed."""

_MAX_EPISODES = 1_000_000


@dataclass(frozen=True)
class Plan:
    """Everything that is known, and checked, before the first step."""

    system: System
    suite: Suite
    conditions: tuple[Condition, ...]
    seeds: list[int]


def make_plan(
    policy: Any,
    environment: EnvironmentSpec,
    suite: Suite | str | None,
    perturb: str | Sequence[str] | None,
    episodes: int,
    seed: int,
    max_steps: int | None,
) -> Plan:
    """Checks everything that can be checked before the first step; see `evaluate` for arguments and errors."""
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0), ("max_steps", max_steps, 1)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise EvaluationError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if episodes > _MAX_EPISODES:
        raise EvaluationError(f"episodes must be {_MAX_EPISODES:,} at most, got {episodes}")
    of = system(environment)
    _check_policy(policy, of)
    if max_steps is None and of.time_limit is None:
        raise EvaluationError(f"{of.env_id} has no time limit: give max_steps (--max-steps)")
    chosen = _suite(suite, perturb)
    conditions = chosen.for_system(of)
    for condition in conditions:
        # Built for no episodes: refuses what does not fit before the first condition runs.
        NoiseLayer(of, of.noise(condition.perturbations), seed, ())
    _refuse_inert(chosen, of, conditions)
    seeds = [int(np.random.SeedSequence([seed, k, _STARTS]).generate_state(1)[0]) for k in range(episodes)]
    return Plan(of, chosen, conditions, seeds)


def _refuse_inert(suite: Suite, of: System, conditions: Sequence[Condition]) -> None:
    found: dict[str, list[tuple[Condition, Perturbation]]] = {}
    for condition, inert in without_effect(of, conditions):
        found.setdefault(inert.parameter, []).append((condition, inert))
    for parameter, told in found.items():
        condition, inert = told[0]
        beside = "" if inert.label == condition.label else f" under '{condition.label}'"
        more = f", nor does it in {len(told) - 1} more conditions" if len(told) > 1 else ""
        message = f"{of.env_id}: {inert.label} changes nothing in this model{beside}{more}"
        if not suite.inert:
            raise EvaluationError(f"{message} ({of.parameters[parameter].meaning})")
        warnings.warn(f"{message} (suite '{suite.name}')", stacklevel=4)


def environment_for(
    policy: Any, env: str | EnvironmentSpec | None, env_kwargs: Mapping[str, Any] | None
) -> EnvironmentSpec:
    """Where a policy is evaluated: the environment that is asked for, else the one that it was made for.

    An id alone that is the policy's own names the policy's environment whole, with its keyword arguments, limit and
    wrappers; ``env_kwargs`` or an `EnvironmentSpec` say what else is meant.

    Raises:
        EvaluationError: nobody names one, or ``env_kwargs`` come beside a description that has its own.
    """
    spec = getattr(policy, "spec", None)
    own = spec.environment if isinstance(spec, PolicySpec) else None
    if env is None:
        if own is None:
            raise EvaluationError("name the environment: the policy does not say what it was made for")
        env = own
    asked = as_spec(env, "the evaluation")
    if env_kwargs:
        if isinstance(env, EnvironmentSpec) and env.kwargs:
            raise EvaluationError("give env_kwargs or an environment with its own, not both")
        said = plain_values(env_kwargs, "env_kwargs")
        base = own if own is not None and own.id == asked.id and asked.plain else asked
        return replace(base, kwargs=said, source="the evaluation")
    same = own is not None and asked.plain and asked.observation_space is None and own.id == asked.id
    return own if same and own is not None else asked


def _check_policy(policy: Any, of: System) -> None:
    _ = acting(policy)
    check_spaces(policy, str(of.environment), of.observation_space, of.action_space)
    spec = getattr(policy, "spec", None)
    if not isinstance(spec, PolicySpec):
        return
    observations, actions = of.observation_space, of.action_space
    if observations.shape != (spec.observation_dim,):
        raise EvaluationError(
            f"the policy takes {spec.observation_dim} observations ({spec.env_id or 'unknown environment'}), "
            f"{of.environment} gives {observations.shape[0] if observations.shape else 0}"
        )
    if isinstance(actions, gym.spaces.Discrete):
        fits = spec.action_count == actions.n
    else:
        fits = spec.action_count == 0 and actions.shape == (spec.action_dim,)
    if not fits:
        raise EvaluationError(f"the policy gives {spec.action_text}, {of.environment} takes {actions}")
    if isinstance(actions, gym.spaces.Box) and (beyond := _beyond(spec, actions)):
        warnings.warn(beyond + f" in {of.environment}: is it the environment of the data?", stacklevel=4)


def _beyond(spec: PolicySpec, actions: gym.spaces.Box) -> str:
    """Where a policy's bounds reach beyond those of the environment, which would cut its actions."""
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    margin = 1e-4 * np.maximum(1.0, np.where(np.isfinite(actions.high), np.abs(actions.high), 1.0))
    outside = (low < actions.low - margin) | (high > actions.high + margin)
    if not outside.any():
        return ""
    k = int(outside.argmax())
    return (
        f"the policy's action {k} lies in {low[k]:g}..{high[k]:g} and is cut to {actions.low[k]:g}..{actions.high[k]:g}"
    )


def _suite(suite: Suite | str | None, perturb: str | Sequence[str] | None) -> Suite:
    if suite is not None and perturb:
        raise EvaluationError("give a suite or perturbations, not both")
    if perturb:
        return suite_from_perturb(perturb)
    if suite is None:
        return Suite.of("nominal", [Condition((), nominal=True)])
    return suite if isinstance(suite, Suite) else load_suite(suite)


def describe(
    suite: Suite,
    conditions: Sequence[Condition],
    environment: EnvironmentSpec,
    episodes: int,
    seed: int,
    max_steps: int | None,
) -> dict[str, Any]:
    """What is kept with a results table: what was asked, and the versions that answered."""
    return {
        "env_id": str(environment),
        "environment": environment.to_dict(),
        "suite": suite.name,
        "suite_source": suite.source,
        "conditions": len(conditions),
        "episodes": episodes,
        "seed": seed,
        "max_steps": max_steps,
        "policy": "deterministic",
        "checkpoint": "last",
        "versions": versions(),
    }
