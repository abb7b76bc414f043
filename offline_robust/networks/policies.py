"""Policies: actor networks with normalisation and action scaling inside, in one safetensors file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, overload

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

_FORMAT = "offline-robust-policy-1"
_MAX_WIDTH = 65_536


@dataclass(frozen=True)
class PolicySpec:
    """Everything needed to rebuild a policy's networks, except their weights."""

    kind: Literal["tanh_gaussian", "deterministic"]
    observation_dim: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    hidden: tuple[int, ...]
    env_id: str | None = None

    @property
    def action_dim(self) -> int:
        """A."""
        return len(self.action_low)


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
    ) -> NDArray[np.float32]: ...
    @torch.no_grad()
    def act(
        self,
        observations: Tensor | NDArray[np.floating],
        *,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor | NDArray[np.float32]:
        """Actions for a batch (B, O) of observations, or for a single one (O,).

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
        array: NDArray[np.float32] = actions.cpu().numpy()
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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{where}: not a safetensors file ({error}); pickled policies are never loaded: export it again"
        ) from None
    policy = Policy(spec)
    load_tensors(policy.actor, tensors, where)
    return policy


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], where: Path | str) -> None:
    """Copies named tensors into a module, checking names, shapes and finiteness first.

    Raises:
        CheckpointError: names the first tensor that does not fit.
    """
    own = module.state_dict()
    if own.keys() != tensors.keys():
        difference = sorted(own.keys() ^ tensors.keys())
        raise CheckpointError(f"{where}: tensors do not fit the network: {', '.join(difference[:4])}")
    for name, value in tensors.items():
        if value.shape != own[name].shape:
            raise CheckpointError(f"{where}: {name} has shape {tuple(value.shape)}, expected {tuple(own[name].shape)}")
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
        EvaluationError: the action space is not a Box with finite bounds.
    """
    if not isinstance(action_space, gym.spaces.Box):
        raise EvaluationError(f"this policy needs continuous actions, the space is {action_space}")
    if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
        raise EvaluationError(f"this policy needs bounded actions, the space is {action_space}")
    low, high = (tuple(float(v) for v in bound) for bound in (action_space.low, action_space.high))
    return PolicySpec(kind, observation_dim, low, high, tuple(hidden), env_id)


def build_actor(spec: PolicySpec, generator: torch.Generator) -> nn.Module:
    """A freshly initialised actor of the description."""
    return (TanhGaussianActor if spec.kind == "tanh_gaussian" else DeterministicActor)(spec, generator)


def _action_range(module: nn.Module, spec: PolicySpec) -> None:
    low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
    module.register_buffer("centre", (high + low) / 2.0)
    module.register_buffer("half_range", (high - low) / 2.0)


def _read_spec(text: str, where: Path) -> PolicySpec:
    try:
        content = json.loads(text) if text else {}
        if content.get("format") != _FORMAT:
            raise CheckpointError(f"{where}: not a policy file of this library (format {content.get('format')!r})")
        fields = content["spec"]
        spec = PolicySpec(
            kind=fields["kind"],
            observation_dim=int(fields["observation_dim"]),
            action_low=tuple(float(v) for v in fields["action_low"]),
            action_high=tuple(float(v) for v in fields["action_high"]),
            hidden=tuple(int(v) for v in fields["hidden"]),
            env_id=fields["env_id"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{where}: the policy's description is damaged ({error!r})") from None
    widths = (spec.observation_dim, spec.action_dim, len(spec.action_high), *spec.hidden)
    if spec.kind not in ("tanh_gaussian", "deterministic") or not all(0 < w <= _MAX_WIDTH for w in widths):
        raise CheckpointError(f"{where}: the policy's description is out of range: {spec}")
    return spec
