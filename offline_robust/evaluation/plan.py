"""What one evaluation will run, checked before anything does."""

from __future__ import annotations

import platform
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import gymnasium as gym
import numpy as np

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
from offline_robust.networks import PolicySpec

_STARTS = zlib.crc32(b"evaluation starts")
"""Keeps the start states of an evaluation apart from those that collection draws from the same seed."""

_MAX_EPISODES = 1_000_000

_PACKAGES = ("offline-robust", "numpy", "torch", "gymnasium", "mujoco")


@dataclass(frozen=True)
class Plan:
    """Everything that is known, and checked, before the first step."""

    system: System
    suite: Suite
    conditions: tuple[Condition, ...]
    seeds: list[int]


def make_plan(
    policy: Any,
    env_id: str,
    suite: Suite | str | None,
    perturb: str | Sequence[str] | None,
    episodes: int,
    seed: int,
    env_kwargs: Mapping[str, Any] | None,
    max_steps: int | None,
) -> Plan:
    """Checks everything that can be checked before the first step; see `evaluate` for arguments and errors."""
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0), ("max_steps", max_steps, 1)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise EvaluationError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if episodes > _MAX_EPISODES:
        raise EvaluationError(f"episodes must be {_MAX_EPISODES:,} at most, got {episodes}")
    of = system(env_id, env_kwargs)
    observation_space = _check_spaces(env_id, of.observation_space, of.action_space)
    _check_policy(policy, env_id, observation_space, of.action_space)
    if max_steps is None and of.time_limit is None:
        raise EvaluationError(f"{env_id} has no time limit: give max_steps")
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
    if isinstance(actions, gym.spaces.Discrete):
        fits = spec.action_count == actions.n and actions.start == 0
    else:
        fits = spec.action_count == 0 and actions.shape == (spec.action_dim,)
    if not fits:
        raise EvaluationError(f"the policy gives {spec.action_text}, {env_id} takes {actions}")


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
    env_id: str,
    env_kwargs: Mapping[str, Any] | None,
    episodes: int,
    seed: int,
    max_steps: int | None,
) -> dict[str, Any]:
    """What is kept with a results table: what was asked, and the versions that answered."""
    return {
        "env_id": env_id,
        "env_kwargs": dict(env_kwargs or {}),
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


def versions() -> dict[str, str]:
    """Of Python and of the packages that determine the numbers of an evaluation."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
