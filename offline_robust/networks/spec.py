"""What a policy file says of its networks: sizes, bounds and kind, checked before anything is built."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np

from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import EvaluationError
from offline_robust.untrusted import parse_json

MAX_WIDTH, MAX_LAYERS = 8_192, 16
"""Bounds of hidden widths and of their number, for every network."""

MAX_CANDIDATES = 10_000
"""Bound of the candidate actions of one observation."""

Kind = Literal["tanh_gaussian", "deterministic", "greedy", "bcq"]

_FORMAT = "offline-robust-policy-1"
_MAX_DIM = 65_536
_MAX_WEIGHTS = 2**28  # one gibibyte


@dataclass(frozen=True)
class CandidateSpec:
    """Where the candidate actions of a `bcq` policy come from."""

    count: int
    """Candidates for each observation: the latent draws that the policy holds."""
    latent_dim: int
    """Width of a latent draw."""
    hidden: tuple[int, ...]
    """Hidden widths of the decoder from (observation, draw) to an action."""
    reach: float
    """Phi: how far the perturbation may move an action, in half-widths of the action range."""


@dataclass(frozen=True)
class PolicySpec:
    """Everything needed to rebuild a policy's networks, except their weights."""

    kind: Kind
    observation_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    hidden: tuple[int, ...]
    environment: EnvironmentSpec | None = None
    """What it was made for, whole; None where nobody said."""
    action_count: int = 0
    """Number of actions 0, 1, ... of a `greedy` policy, whose action_low and action_high are empty; else 0."""
    candidates: CandidateSpec | None = None
    """Of a `bcq` policy; else None."""

    @property
    def env_id(self) -> str | None:
        """The id of the environment it was made for."""
        return self.environment.id if self.environment is not None else None

    @property
    def action_dim(self) -> int:
        """A; 0 where actions are discrete."""
        return len(self.action_low)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; files of policies whose environment's id says all stay what they were."""
        names = ("kind", "observation_dim", "action_low", "action_high", "hidden", "env_id", "action_count")
        content: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.candidates is not None:
            content["candidates"] = asdict(self.candidates)
        if self.environment is not None and not (self.environment.only_id and self.environment.plain):
            content["environment"] = self.environment.to_dict()
        return content

    @property
    def action_text(self) -> str:
        """What the policy gives, for messages."""
        return f"one of {self.action_count} actions" if self.action_count else f"{self.action_dim} continuous actions"


def policy_spec(
    kind: Kind,
    observation_dim: int,
    action_space: gym.Space[Any],
    hidden: Sequence[int],
    environment: EnvironmentSpec | None,
    candidates: CandidateSpec | None = None,
) -> PolicySpec:
    """The description of a policy for a bounded Box action space, or a `greedy` one for a Discrete space.

    Raises:
        EvaluationError: the action space is not a Box with finite bounds (`greedy`: not a Discrete space that counts
            from 0), or a size is out of range.
    """
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    count = 0
    if kind == "greedy":
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


def encode_spec(spec: PolicySpec) -> str:
    """One line of JSON; `decode_spec` reads it back."""
    return json.dumps({"format": _FORMAT, "spec": spec.to_dict()})


def decode_spec(text: str) -> tuple[PolicySpec | None, str]:
    """Reads `encode_spec`'s JSON from a file that is not trusted: the description, or None and what is wrong."""
    try:
        content = parse_json(text) if text else {}
        if content.get("format") != _FORMAT:
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


def decode_environment(fields: Mapping[str, Any]) -> EnvironmentSpec | None:
    """The environment of a policy's description; older files have its id alone.

    Raises:
        EvaluationError: it is not one.
    """
    if (content := fields.get("environment")) is not None:
        return EnvironmentSpec.from_dict(content, "the policy")
    named = fields.get("env_id")
    return None if named is None else EnvironmentSpec.from_dict({"id": named}, "the policy")


def spec_problem(spec: PolicySpec) -> str:
    """What is wrong with a description, which may come from any file; nothing when it is right."""
    low, high = spec.action_low, spec.action_high
    if spec.kind not in get_args(Kind):
        return f"kind is none of {', '.join(get_args(Kind))}"
    if type(spec.observation_dim) is not int or not 1 <= spec.observation_dim <= _MAX_DIM:
        return f"observation_dim is not a whole number from 1 to {_MAX_DIM:,}"
    if not _are_widths(spec.hidden):
        return f"hidden is not 1 to {MAX_LAYERS} whole numbers from 1 to {MAX_WIDTH:,}"
    if type(spec.action_count) is not int or not 0 <= spec.action_count <= _MAX_DIM:
        return f"action_count is not a whole number from 0 to {_MAX_DIM:,}"
    if (spec.kind == "greedy") != (spec.action_count > 0) or (spec.action_count > 0 and (low or high)):
        return "a greedy policy has an action_count and no action_low or action_high, the others have no action_count"
    if len(low) != len(high) or not (spec.action_count or 1 <= len(low) <= _MAX_DIM):
        return f"action_low and action_high are not of one length from 1 to {_MAX_DIM:,}"
    if not all(math.isfinite(a) and math.isfinite(b) and a <= b for a, b in zip(low, high, strict=True)):
        return "action_low and action_high are not finite with low <= high"
    if (spec.kind == "bcq") != (spec.candidates is not None):
        return "a bcq policy has candidates, the others have none"
    if spec.candidates is not None and (problem := _candidates_problem(spec.candidates)):
        return problem
    if (weights := sum(math.prod(shape) for shape in tensor_shapes(spec).values())) > _MAX_WEIGHTS:
        return f"it has {weights:,} weights, more than {_MAX_WEIGHTS:,}"
    return ""


def tensor_shapes(spec: PolicySpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of an actor of the description, by arithmetic alone."""
    o, a, sizes = spec.observation_dim, spec.action_dim, [spec.observation_dim, *spec.hidden]
    shapes: dict[str, tuple[int, ...]] = {}
    if not spec.action_count:
        shapes = {"centre": (a,), "half_range": (a,)}
    if spec.candidates is not None:
        draws = spec.candidates
        shapes |= {"draws": (draws.count, draws.latent_dim)}
        shapes |= _layer_shapes("decoder", [o + draws.latent_dim, *draws.hidden, a])
        shapes |= _layer_shapes("perturbation", [o + a, *spec.hidden, a])
        return shapes | _layer_shapes("critic", [o + a, *spec.hidden, 1])
    if spec.kind == "tanh_gaussian":
        for head in ("mean", "log_std"):
            shapes |= {f"{head}.weight": (a, spec.hidden[-1]), f"{head}.bias": (a,)}
        return shapes | _layer_shapes("trunk", sizes)
    return shapes | _layer_shapes("trunk", [*sizes, spec.action_count or a])


def one_line(error: Exception) -> str:
    """An exception's kind and message on one line of bounded length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _candidates_problem(spec: CandidateSpec) -> str:
    for name, largest in (("count", MAX_CANDIDATES), ("latent_dim", _MAX_DIM)):
        if type(value := getattr(spec, name)) is not int or not 1 <= value <= largest:
            return f"candidates.{name} is not a whole number from 1 to {largest:,}"
    if not _are_widths(spec.hidden):
        return f"candidates.hidden is not 1 to {MAX_LAYERS} whole numbers from 1 to {MAX_WIDTH:,}"
    if type(spec.reach) not in (int, float) or not 0.0 <= spec.reach <= 2.0:
        return "candidates.reach is not a number from 0 to 2"
    return ""


def _are_widths(hidden: Sequence[Any]) -> bool:
    return 1 <= len(hidden) <= MAX_LAYERS and all(type(width) is int and 1 <= width <= MAX_WIDTH for width in hidden)


def _layer_shapes(name: str, sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        shapes |= {f"{name}.layers.{place}.weight": (fan_out, fan_in), f"{name}.layers.{place}.bias": (fan_out,)}
    return shapes
