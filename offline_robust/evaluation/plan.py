"""What one evaluation will run, checked before anything does."""

from __future__ import annotations

import hashlib
import json
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np

from offline_robust.environment import EnvironmentSpec, as_spec, without
from offline_robust.environment.spec import plain_values
from offline_robust.envs import Condition, Perturbation, Stages, Suite, System, system, without_effect
from offline_robust.errors import EvaluationError
from offline_robust.evaluation.acting import acting, check_spaces
from offline_robust.evaluation.request import EvaluationRequest
from offline_robust.networks import PolicySpec
from offline_robust.process import versions

_STARTS = zlib.crc32(b"evaluation starts")
"""Keeps the start states of an evaluation apart from those that collection draws from the same seed."""

EPISODES = 20
"""Per condition, where nobody says."""


@dataclass(frozen=True)
class Plan:
    """Everything that is known, and checked, before the first step.

    Attributes:
        request: what is asked for, all of it said.
        system: the environment.
        suite: what the conditions come from.
        conditions: C of them.
        stages: for each condition what its numbers depend on, see `Stages.fingerprints`.
        seeds: of the start states, one for each episode.
    """

    request: EvaluationRequest
    system: System
    suite: Suite
    conditions: tuple[Condition, ...]
    stages: tuple[tuple[str, ...], ...]
    seeds: list[int]

    @property
    def seed(self) -> int:
        """Of start states and noise."""
        return self.request.seed or 0

    @property
    def episodes(self) -> int:
        """Per condition."""
        return len(self.seeds)


def make_plan(policy: Any, request: EvaluationRequest) -> Plan:
    """Checks everything that can be checked before the first step; see `evaluate` for errors."""
    request = request.or_else("", EPISODES, 0)
    of = system(environment_for(policy, request))
    _check_policy(policy, of)
    if request.max_steps is None and of.time_limit is None:
        raise EvaluationError(f"{of.env_id} has no time limit: give max_steps (--max-steps)")
    suite, conditions = request.conditions(of)
    seed, episodes = request.seed or 0, request.episodes or EPISODES
    # Built for no episodes: refuses what does not fit before the first condition runs.
    stages = tuple(Stages(of, c.perturbations, seed, (), policy).fingerprints for c in conditions)
    _refuse_inert(suite, of, conditions)
    seeds = [int(np.random.SeedSequence([seed, k, _STARTS]).generate_state(1)[0]) for k in range(episodes)]
    return Plan(request, of, suite, conditions, stages, seeds)


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
        warnings.warn(f"{message} (suite '{suite.name}')", stacklevel=5)


def environment_for(policy: Any, request: EvaluationRequest) -> EnvironmentSpec:
    """Where a policy is evaluated: the environment that is asked for, else the one that it was made for.

    An id alone that is the policy's own names the policy's environment whole, with its keyword arguments, limit and
    wrappers; ``env_kwargs`` or an `EnvironmentSpec` say what else is meant.

    Raises:
        EvaluationError: nobody names one, or ``env_kwargs`` come beside a description that has its own.
    """
    spec, env = getattr(policy, "spec", None), request.env
    own = spec.environment if isinstance(spec, PolicySpec) else None
    if env is None:
        if own is None:
            raise EvaluationError("name the environment: the policy does not say what it was made for")
        env = own
    chosen = asked = as_spec(env, "the evaluation")
    if request.env_kwargs:
        if isinstance(env, EnvironmentSpec) and env.kwargs:
            raise EvaluationError("give env_kwargs or an environment with its own, not both")
        said = plain_values(request.env_kwargs, "env_kwargs")
        base = own if own is not None and own.id == asked.id and asked.plain else asked
        chosen = replace(base, kwargs=said, source="the evaluation")
    elif own is not None and asked.plain and asked.observation_space is None and own.id == asked.id:
        chosen = own
    return without(chosen, request.ignore_wrappers)


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
        warnings.warn(beyond + f" in {of.environment}: is it the environment of the data?", stacklevel=5)


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


def describe(plan: Plan) -> dict[str, Any]:
    """What is kept with a results table: what was asked, and the versions that answered."""
    environment = plan.system.environment
    described = {
        "env_id": str(environment),
        "environment": environment.to_dict(),
        "suite": plan.suite.name,
        "suite_source": plan.suite.source,
        "conditions": len(plan.conditions),
        "episodes": plan.episodes,
        "seed": plan.seed,
        "max_steps": plan.request.max_steps,
        "policy": "deterministic",
        "checkpoint": "last",
        "versions": versions(),
    }
    if any(len(stages) > 1 for stages in plan.stages):  # there is more than physics
        described["stages"] = hashlib.sha256(json.dumps([stages[1:] for stages in plan.stages]).encode()).hexdigest()
    return described
