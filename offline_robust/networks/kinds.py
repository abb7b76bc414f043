"""The kinds of policy, and descriptions of policies: made, read back and checked before anything is built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import EvaluationError
from offline_robust.networks.actors import Actor, DeterministicActor, GreedyActor, TanhGaussianActor
from offline_robust.networks.candidates import BCQActor
from offline_robust.networks.spec import (
    FORMAT,
    MAX_DIM,
    MAX_LAYERS,
    MAX_WIDTH,
    CandidateSpec,
    PolicySpec,
    are_widths,
    decode_environment,
    one_line,
)

KINDS: dict[str, type[Actor]] = {
    kind.kind: kind for kind in (TanhGaussianActor, DeterministicActor, GreedyActor, BCQActor)
}
"""Name of a kind to its class."""

_MAX_WEIGHTS = 2**28  # one gibibyte


def policy_spec(
    kind: str,
    observation_dim: int,
    action_space: gym.Space[Any],
    hidden: Sequence[int],
    environment: EnvironmentSpec | None,
    candidates: CandidateSpec | None = None,
) -> PolicySpec:
    """The description of a policy for a bounded Box action space, or for a Discrete one where the kind is discrete.

    Raises:
        EvaluationError: the action space is not a Box with finite bounds (or not a Discrete space that counts from 0),
            or a size is out of range.
    """
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    count = 0
    if KINDS[kind].discrete:
        if not isinstance(action_space, gym.spaces.Discrete) or action_space.start != 0:
            raise EvaluationError(f"this policy needs discrete actions that count from 0, the space is {action_space}")
        count = int(action_space.n)
    else:
        if not isinstance(action_space, gym.spaces.Box):
            raise EvaluationError(f"this policy needs continuous actions, the space is {action_space}")
        if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
            raise EvaluationError(f"this policy needs bounded actions, the space is {action_space}")
        low, high = (tuple(float(v) for v in bound) for bound in (action_space.low, action_space.high))
    spec = PolicySpec(kind, observation_dim, low, high, tuple(hidden), environment, count, candidates)
    if problem := spec_problem(spec):
        raise EvaluationError(f"no policy can be made: {problem}")
    return spec


def decode_spec(content: Mapping[str, Any]) -> tuple[PolicySpec | None, str]:
    """Reads what `spec.encode_spec` wrote, from a file that is not trusted: it, or None and the problem."""
    try:
        if content.get("format") != FORMAT:
            return None, ""
        fields = dict(content["spec"])
        for name in ("action_low", "action_high"):
            fields[name] = tuple(float(v) for v in fields[name])
        if (candidates := fields.get("candidates")) is not None:
            fields["candidates"] = CandidateSpec(**candidates | {"hidden": tuple(candidates["hidden"])})
        fields["environment"] = decode_environment(fields)
        fields.pop("env_id", None)
        spec = PolicySpec(**fields | {"hidden": tuple(fields["hidden"])})
        return spec, spec_problem(spec)
    except (ArithmeticError, AttributeError, EvaluationError, LookupError, TypeError, ValueError) as error:
        return None, one_line(error)


def spec_problem(spec: PolicySpec) -> str:
    """What is wrong with a description, which may come from any file; nothing when it is right."""
    low, high = spec.action_low, spec.action_high
    if spec.kind not in KINDS:
        return f"kind is none of {', '.join(KINDS)}"
    if type(spec.observation_dim) is not int or not 1 <= spec.observation_dim <= MAX_DIM:
        return f"observation_dim is not a whole number from 1 to {MAX_DIM:,}"
    if not are_widths(spec.hidden):
        return f"hidden is not 1 to {MAX_LAYERS} whole numbers from 1 to {MAX_WIDTH:,}"
    if type(spec.action_count) is not int or not 0 <= spec.action_count <= MAX_DIM:
        return f"action_count is not a whole number from 0 to {MAX_DIM:,}"
    if KINDS[spec.kind].discrete != (spec.action_count > 0) or (spec.action_count > 0 and (low or high)):
        return "a discrete policy has an action_count and no action_low or action_high, the others have no action_count"
    if len(low) != len(high) or not (spec.action_count or 1 <= len(low) <= MAX_DIM):
        return f"action_low and action_high are not of one length from 1 to {MAX_DIM:,}"
    if not all(math.isfinite(a) and math.isfinite(b) and a <= b for a, b in zip(low, high, strict=True)):
        return "action_low and action_high are not finite with low <= high"
    if problem := KINDS[spec.kind].problem(spec):
        return problem
    if (weights := sum(math.prod(shape) for shape in tensor_shapes(spec).values())) > _MAX_WEIGHTS:
        return f"it has {weights:,} weights, more than {_MAX_WEIGHTS:,}"
    return ""


def tensor_shapes(spec: PolicySpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of an actor of the description, by arithmetic alone."""
    return KINDS[spec.kind].shapes(spec)


def build_actor(spec: PolicySpec, generator: torch.Generator) -> Actor:
    """A freshly initialised actor of the description."""
    return KINDS[spec.kind](spec, generator)
