"""What a policy file says of its networks: sizes, bounds and kind, checked before anything is built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from offline_robust.environment import EnvironmentSpec

MAX_WIDTH, MAX_LAYERS = 8_192, 16
"""Bounds of hidden widths and of their number, for every network."""

MAX_CANDIDATES = 10_000
"""Bound of the candidate actions of one observation."""

MAX_DIM = 65_536
"""Bound of the width of observations and actions."""

FORMAT = "offline-robust-policy-1"


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

    kind: str
    """A name of `kinds.KINDS`."""
    observation_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    hidden: tuple[int, ...]
    environment: EnvironmentSpec | None = None
    """What it was made for, whole; None where nobody said."""
    action_count: int = 0
    """Number of actions 0, 1, ... where they are discrete, and action_low and action_high are empty; else 0."""
    candidates: CandidateSpec | None = None
    """Of kinds that choose among candidates; else None."""

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


def encode_spec(spec: PolicySpec) -> str:
    """One line of JSON; `decode_spec` reads it back."""
    return json.dumps({"format": FORMAT, "spec": spec.to_dict()})


def decode_environment(fields: Mapping[str, Any]) -> EnvironmentSpec | None:
    """The environment of a policy's description; older files have its id alone.

    Raises:
        EvaluationError: it is not one.
    """
    if (content := fields.get("environment")) is not None:
        return EnvironmentSpec.from_dict(content, "the policy")
    named = fields.get("env_id")
    return None if named is None else EnvironmentSpec.from_dict({"id": named}, "the policy")


def one_line(error: Exception) -> str:
    """An exception's kind and message on one line of bounded length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def are_widths(hidden: Sequence[Any]) -> bool:
    """Whether these are sizes of hidden layers that may be built."""
    return 1 <= len(hidden) <= MAX_LAYERS and all(type(width) is int and 1 <= width <= MAX_WIDTH for width in hidden)


def layer_shapes(name: str, sizes: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of an MLP of that name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        shapes |= {f"{name}.layers.{place}.weight": (fan_out, fan_in), f"{name}.layers.{place}.bias": (fan_out,)}
    return shapes
