"""Policies: actor networks with normalisation and action scaling inside, in one safetensors file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, overload

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from offline_robust.errors import CheckpointError, EvaluationError
from offline_robust.files import replacing
from offline_robust.networks.mlp import MLP, linear

LOG_STD_RANGE = (-20.0, 2.0)
"""Bounds of the Gaussian head's log standard deviation (DR-SAC's code, and SAC's)."""

MAX_WIDTH, MAX_LAYERS = 8_192, 16
"""Bounds of hidden widths and of their number, for every network."""

Kind = Literal["tanh_gaussian", "deterministic", "greedy"]

_FORMAT = "offline-robust-policy-1"
_MAX_DIM = 65_536
_MAX_NAME = 200
_MAX_WEIGHTS = 2**28  # one gibibyte


@dataclass(frozen=True)
class PolicySpec:
    """Everything needed to rebuild a policy's networks, except their weights."""

    kind: Kind
    observation_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    hidden: tuple[int, ...]
    env_id: str | None = None
    action_count: int = 0
    """Number of actions 0, 1, ... of a `greedy` policy, whose action_low and action_high are empty; else 0."""

    @property
    def action_dim(self) -> int:
        """A; 0 where actions are discrete."""
        return len(self.action_low)

    @property
    def action_text(self) -> str:
        """What the policy gives, for messages."""
        return f"one of {self.action_count} actions" if self.action_count else f"{self.action_dim} continuous actions"


class TanhGaussianActor(nn.Module):
    """SAC's actor: a = centre + half_range * tanh(u), u ~ N(mu(s), std(s)).

    Hidden layers are ReLU; two linear heads give mu and log std, the latter clamped to `LOG_STD_RANGE`. Head weights
    and biases start within 1e-3 of zero and trunk biases at 0.1, as in DR-SAC's code (EDAC's start).
    """

    centre: Tensor
    half_range: Tensor

    def __init__(self, spec: PolicySpec, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = MLP([spec.observation_dim, *spec.hidden], generator)
        self.mean = linear(spec.hidden[-1], spec.action_dim, generator)
        self.log_std = linear(spec.hidden[-1], spec.action_dim, generator)
        _action_range(self, spec)
        with torch.no_grad():
            for layer in self.trunk.linears:
                layer.bias.fill_(0.1)
            for head in (self.mean, self.log_std):
                head.weight.uniform_(-1e-3, 1e-3, generator=generator)
                head.bias.uniform_(-1e-3, 1e-3, generator=generator)

    def forward(self, observations: Tensor) -> Tensor:
        """The deterministic action (B, A), in the environment's scale."""
        return self.to_range(torch.tanh(self.mean(F.relu(self.trunk(observations)))))

    def sample(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A reparameterised action and its log density.

        Args:
            observations: (B, O).
            noise: (B, A) standard normal draws.

        Returns:
            Actions (B, A) in the environment's scale, and log pi (B,) of the action in [-1, 1]: the constant
            log(half_range) is left out, as in DR-SAC's code, so that the entropy target -A keeps its meaning.
        """
        hidden = F.relu(self.trunk(observations))
        mean, log_std = self.mean(hidden), self.log_std(hidden).clamp(*LOG_STD_RANGE)
        u = torch.addcmul(mean, log_std.exp(), noise)
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), finite for any u.
        squash = 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))
        log_prob = (-0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi) - squash).sum(-1)
        return self.to_range(torch.tanh(u)), log_prob

    def to_range(self, squashed: Tensor) -> Tensor:
        """From [-1, 1] to the environment's action range."""
        return torch.addcmul(self.centre, self.half_range, squashed)


class DeterministicActor(nn.Module):
    """TD3's actor: a = centre + half_range * tanh(mlp(s))."""

    centre: Tensor
    half_range: Tensor

    def __init__(self, spec: PolicySpec, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = MLP([spec.observation_dim, *spec.hidden, spec.action_dim], generator)
        _action_range(self, spec)

    def forward(self, observations: Tensor) -> Tensor:
        """The action (B, A), in the environment's scale."""
        return torch.addcmul(self.centre, self.half_range, torch.tanh(self.trunk(observations)))


class GreedyActor(nn.Module):
    """DQN's actor: the action whose value, one output of an MLP for each, is largest."""

    def __init__(self, spec: PolicySpec, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = MLP([spec.observation_dim, *spec.hidden, spec.action_count], generator)

    def forward(self, observations: Tensor) -> Tensor:
        """The action (B,), int64."""
        best: Tensor = self.trunk(observations).argmax(-1)
        return best


class Policy:
    """A trained policy: observations in, actions out, in the environment's own units.

    Args:
        spec: describes the networks.
        actor: the network; a fresh one when None.
    """

    def __init__(self, spec: PolicySpec, actor: nn.Module | None = None) -> None:
        self.spec = spec
        self.actor = actor if actor is not None else build_actor(spec, torch.Generator())

    @overload
    def act(
        self, observations: Tensor, *, deterministic: bool = True, generator: torch.Generator | None = None
    ) -> Tensor: ...
    @overload
    def act(
        self,
        observations: NDArray[np.floating],
        *,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> NDArray[Any]: ...
    @torch.no_grad()
    def act(
        self,
        observations: Tensor | NDArray[np.floating],
        *,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor | NDArray[Any]:
        """Actions for a batch (B, O) of observations, or for a single one (O,): (B, A) floats or (B,) whole numbers.

        Args:
            observations: a tensor or an array; the answer is of the same sort.
            deterministic: the mean action; otherwise one draw from the policy (a deterministic actor has no other).
            generator: the stream of the draws, needed when ``deterministic`` is false.

        Raises:
            EvaluationError: the width is not the policy's, or a draw is asked for without a generator.
        """
        parameter = next(self.actor.parameters())
        x = torch.as_tensor(observations, dtype=torch.float32, device=parameter.device)
        if x.shape[-1:] != (self.spec.observation_dim,) or x.ndim not in (1, 2):
            raise EvaluationError(
                f"the policy takes observations of width {self.spec.observation_dim}, got shape {tuple(x.shape)}"
            )
        actions: Tensor
        if deterministic or not isinstance(self.actor, TanhGaussianActor):
            actions = self.actor(x)
        else:
            if generator is None:
                raise EvaluationError("a stochastic action needs a generator: act(..., generator=torch.Generator())")
            noise = torch.randn((*x.shape[:-1], self.spec.action_dim), generator=generator, device=x.device)
            actions, _ = self.actor.sample(x, noise)
        if isinstance(observations, Tensor):
            return actions
        array: NDArray[Any] = actions.cpu().numpy()
        return array

    def save(self, path: str | Path) -> None:
        """Writes weights and description into one safetensors file, atomically."""
        # One metadata entry: safetensors writes several in no fixed order, and equal policies give equal files.
        metadata = {"policy": json.dumps({"format": _FORMAT, "spec": asdict(self.spec)})}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.actor.state_dict().items()}
        with replacing(path) as aside:
            save_file(tensors, aside, metadata)


def load_policy(path: str | Path) -> Policy:
    """Reads a policy written by `Policy.save`. Nothing is ever unpickled.

    Raises:
        CheckpointError: the file is missing, is not safetensors, or its tensors do not fit its description.
    """
    where = Path(path)
    if not where.is_file():
        raise CheckpointError(f"{where}: no such policy file")
    try:
        with safe_open(where, framework="pt") as file:
            spec = _read_spec((file.metadata() or {}).get("policy", ""), where)
            # The header says it all: nothing is allocated for a file that does not fit its description.
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            _require_names(found, shapes := _shapes(spec), where)
            for name, shape in shapes.items():
                if (tuple(found[name].get_shape()), found[name].get_dtype()) != (shape, "F32"):
                    raise CheckpointError(f"{where}: {name} is not float32 of shape {shape}")
            tensors = {name: file.get_tensor(name) for name in shapes}
        policy = Policy(spec)
        load_tensors(policy.actor, tensors, where)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{where}: not a safetensors file ({_line(error)}); pickled policies are never loaded: export it again"
        ) from None
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: damaged ({_line(error)})") from None
    return policy


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], where: Path | str) -> None:
    """Copies named tensors into a module, checking names, shapes, types and finiteness first.

    Raises:
        CheckpointError: names the first tensor that does not fit.
    """
    own = module.state_dict()
    _require_names(tensors, own, where)
    for name, value in tensors.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise CheckpointError(
                f"{where}: {name} is {value.dtype} of shape {tuple(value.shape)}, "
                f"expected {own[name].dtype} of shape {tuple(own[name].shape)}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{where}: {name} holds NaN or infinite values")
    module.load_state_dict(tensors)


def policy_spec(
    kind: Literal["tanh_gaussian", "deterministic"],
    observation_dim: int,
    action_space: gym.Space[NDArray[np.floating]],
    hidden: Sequence[int],
    env_id: str | None,
) -> PolicySpec:
    """The description of a policy for a bounded Box action space.

    Raises:
        EvaluationError: the action space is not a Box with finite bounds, or a size is out of range.
    """
    if not isinstance(action_space, gym.spaces.Box):
        raise EvaluationError(f"this policy needs continuous actions, the space is {action_space}")
    if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
        raise EvaluationError(f"this policy needs bounded actions, the space is {action_space}")
    low, high = (tuple(float(v) for v in bound) for bound in (action_space.low, action_space.high))
    spec = PolicySpec(kind, observation_dim, low, high, tuple(hidden), env_id)
    if problem := _problem(spec):
        raise EvaluationError(f"no policy can be made: {problem}")
    return spec


def build_actor(spec: PolicySpec, generator: torch.Generator) -> nn.Module:
    """A freshly initialised actor of the description."""
    return _ACTORS[spec.kind](spec, generator)


_ACTORS: dict[str, type[TanhGaussianActor | DeterministicActor | GreedyActor]] = {
    "tanh_gaussian": TanhGaussianActor,
    "deterministic": DeterministicActor,
    "greedy": GreedyActor,
}


def _action_range(module: nn.Module, spec: PolicySpec) -> None:
    low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
    module.register_buffer("centre", (high + low) / 2.0)
    module.register_buffer("half_range", (high - low) / 2.0)


def _read_spec(text: str, where: Path) -> PolicySpec:
    try:
        content = json.loads(text) if text else {}
        if content.get("format") != _FORMAT:
            raise CheckpointError(f"{where}: not a policy file of this library")
        fields = dict(content["spec"])
        for name in ("action_low", "action_high"):
            fields[name] = tuple(float(v) for v in fields[name])
        spec = PolicySpec(**fields | {"hidden": tuple(fields["hidden"])})
        problem = _problem(spec)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        problem = _line(error)
    if problem:
        raise CheckpointError(f"{where}: the policy's description is damaged ({problem})")
    return spec


def _problem(spec: PolicySpec) -> str:
    """What is wrong with a description, which may come from any file; nothing when it is right."""
    low, high, widths = spec.action_low, spec.action_high, (spec.observation_dim, *spec.hidden)
    if spec.kind not in _ACTORS:
        return f"kind is none of {', '.join(_ACTORS)}"
    if not all(type(width) is int for width in widths) or not 1 <= spec.observation_dim <= _MAX_DIM:
        return f"observation_dim is not a whole number from 1 to {_MAX_DIM:,}"
    if not 1 <= len(spec.hidden) <= MAX_LAYERS or not all(1 <= width <= MAX_WIDTH for width in spec.hidden):
        return f"hidden is not 1 to {MAX_LAYERS} whole numbers from 1 to {MAX_WIDTH:,}"
    if type(spec.action_count) is not int or not 0 <= spec.action_count <= _MAX_DIM:
        return f"action_count is not a whole number from 0 to {_MAX_DIM:,}"
    if (spec.kind == "greedy") != (spec.action_count > 0) or (spec.action_count > 0 and (low or high)):
        return "a greedy policy has an action_count and no action_low or action_high, the others have no action_count"
    if len(low) != len(high) or not (spec.action_count or 1 <= len(low) <= _MAX_DIM):
        return f"action_low and action_high are not of one length from 1 to {_MAX_DIM:,}"
    if not all(math.isfinite(a) and math.isfinite(b) and a <= b for a, b in zip(low, high, strict=True)):
        return "action_low and action_high are not finite with low <= high"
    if spec.env_id is not None and not (isinstance(spec.env_id, str) and len(spec.env_id) <= _MAX_NAME):
        return f"env_id is not a name of at most {_MAX_NAME} characters"
    if (weights := sum(math.prod(shape) for shape in _shapes(spec).values())) > _MAX_WEIGHTS:
        return f"it has {weights:,} weights, more than {_MAX_WEIGHTS:,}"
    return ""


def _shapes(spec: PolicySpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of `build_actor`, by arithmetic alone."""
    sizes = [spec.observation_dim, *spec.hidden]
    layers = {f"trunk.layers.{i}": pair for i, pair in enumerate(pairwise(sizes))}
    last = (spec.hidden[-1], spec.action_count or spec.action_dim)
    layers |= {"mean": last, "log_std": last} if spec.kind == "tanh_gaussian" else {f"trunk.layers.{len(layers)}": last}
    shapes: dict[str, tuple[int, ...]] = {}
    if not spec.action_count:
        shapes = {"centre": (spec.action_dim,), "half_range": (spec.action_dim,)}
    for name, (fan_in, fan_out) in layers.items():
        shapes |= {f"{name}.weight": (fan_out, fan_in), f"{name}.bias": (fan_out,)}
    return shapes


def _require_names(found: Mapping[str, object], expected: Mapping[str, object], where: Path | str) -> None:
    if found.keys() != expected.keys():
        difference = ", ".join(name[:80] for name in sorted(found.keys() ^ expected.keys())[:4])
        raise CheckpointError(f"{where}: tensors do not fit the network: {difference}")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
