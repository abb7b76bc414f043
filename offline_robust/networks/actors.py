"""Actor networks: observations to actions, with the environment's action range inside."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from offline_robust.networks.mlp import MLP, linear
from offline_robust.networks.spec import PolicySpec, layer_shapes

LOG_STD_RANGE = (-20.0, 2.0)
"""Bounds of the Gaussian head's log standard deviation (DR-SAC's code, and SAC's)."""

_INSIDE = 1.0 - 1e-4
"""Largest magnitude of a squashed action whose density is asked for: atanh is infinite at 1, and 4.95 here. Ours."""


class Actor(nn.Module):
    """A kind of policy: how it is described, the shapes of its tensors, what it puts out and how it draws.

    A subclass is built from ``(spec, generator)``. A further kind is one subclass and one line of `kinds.KINDS`.
    """

    kind: ClassVar[str]
    """As policy files have it."""
    discrete: ClassVar[bool] = False
    """Whether it puts out whole numbers below `PolicySpec.action_count`."""
    noisy: ClassVar[bool] = False
    """Whether it has other actions than its deterministic one: `draw` takes A standard normal numbers."""
    words: ClassVar[str]
    """What it is, on a dataset's card."""

    @classmethod
    def problem(cls, spec: PolicySpec) -> str:
        """What of a description, which may come from any file, does not fit this kind; nothing when it fits."""
        return "a policy that chooses among no candidates has none" if spec.candidates is not None else ""

    @classmethod
    @abstractmethod
    def shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its tensors, by arithmetic alone."""

    def draw(self, observations: Tensor, noise: Tensor) -> Tensor:
        """An action of the policy's law.

        Args:
            observations: (B, O).
            noise: (B, A) standard normal.
        """
        action: Tensor = self(observations)
        return action


class TanhGaussianActor(Actor):
    """SAC's actor: a = centre + half_range * tanh(u), u ~ N(mu(s), std(s)).

    Hidden layers are ReLU; two linear heads give mu and log std, the latter clamped to `LOG_STD_RANGE`. Head weights
    and biases start within 1e-3 of zero and trunk biases at 0.1, as in DR-SAC's code (EDAC's start).
    """

    kind = "tanh_gaussian"
    noisy = True
    words = "a Gaussian squashed by tanh"
    centre: Tensor
    half_range: Tensor

    def __init__(self, spec: PolicySpec, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = MLP([spec.observation_dim, *spec.hidden], generator)
        self.mean = linear(spec.hidden[-1], spec.action_dim, generator)
        self.log_std = linear(spec.hidden[-1], spec.action_dim, generator)
        register_range(self, spec)
        with torch.no_grad():
            for layer in self.trunk.linears:
                layer.bias.fill_(0.1)
            for head in (self.mean, self.log_std):
                head.weight.uniform_(-1e-3, 1e-3, generator=generator)
                head.bias.uniform_(-1e-3, 1e-3, generator=generator)

    @classmethod
    def shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """See `Actor.shapes`."""
        shapes = range_shapes(spec) | layer_shapes("trunk", [spec.observation_dim, *spec.hidden])
        for head in ("mean", "log_std"):
            shapes |= {f"{head}.weight": (spec.action_dim, spec.hidden[-1]), f"{head}.bias": (spec.action_dim,)}
        return shapes

    def draw(self, observations: Tensor, noise: Tensor) -> Tensor:
        """See `Actor.draw`."""
        return self.sample(observations, noise)[0]

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

    def log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Log density of given actions.

        Args:
            observations: (B, O).
            actions: (B, A) in the environment's scale; one at a bound counts as just inside it.

        Returns:
            log pi (B,) of the action in [-1, 1], without log(half_range), as `sample` has it.
        """
        hidden = F.relu(self.trunk(observations))
        mean, log_std = self.mean(hidden), self.log_std(hidden).clamp(*LOG_STD_RANGE)
        squashed = ((actions - self.centre) / self.half_range).clamp(-_INSIDE, _INSIDE)
        noise = (torch.atanh(squashed) - mean) / log_std.exp()
        normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        return torch.sum(normal - torch.log1p(-squashed.square()), -1)

    def to_range(self, squashed: Tensor) -> Tensor:
        """From [-1, 1] to the environment's action range."""
        return torch.addcmul(self.centre, self.half_range, squashed)


class DeterministicActor(Actor):
    """TD3's actor: a = centre + half_range * tanh(mlp(s))."""

    kind = "deterministic"
    words = "one action, through tanh"
    centre: Tensor
    half_range: Tensor

    def __init__(self, spec: PolicySpec, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = MLP([spec.observation_dim, *spec.hidden, spec.action_dim], generator)
        register_range(self, spec)

    @classmethod
    def shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """See `Actor.shapes`."""
        return range_shapes(spec) | layer_shapes("trunk", [spec.observation_dim, *spec.hidden, spec.action_dim])

    def forward(self, observations: Tensor) -> Tensor:
        """The action (B, A), in the environment's scale."""
        return torch.addcmul(self.centre, self.half_range, torch.tanh(self.trunk(observations)))


class GreedyActor(Actor):
    """DQN's actor: the action whose value, one output of an MLP for each, is largest."""

    kind = "greedy"
    discrete = True
    words = "the action of the largest value"

    def __init__(self, spec: PolicySpec, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = MLP([spec.observation_dim, *spec.hidden, spec.action_count], generator)

    @classmethod
    def shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """See `Actor.shapes`."""
        return layer_shapes("trunk", [spec.observation_dim, *spec.hidden, spec.action_count])

    def forward(self, observations: Tensor) -> Tensor:
        """The action (B,), int64."""
        best: Tensor = self.trunk(observations).argmax(-1)
        return best


def range_shapes(spec: PolicySpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what `register_range` registers."""
    return {"centre": (spec.action_dim,), "half_range": (spec.action_dim,)}


def register_range(module: nn.Module, spec: PolicySpec) -> None:
    """Gives a module the centre and the half-width of the action range, (A,) each, as buffers."""
    low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
    module.register_buffer("centre", (high + low) / 2.0)
    module.register_buffer("half_range", (high - low) / 2.0)
