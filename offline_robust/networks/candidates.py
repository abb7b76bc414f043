"""Batch-constrained actions: candidates near those of the data, and the best of them under a critic.

Source: BCQ (Fujimoto et al. 2019) as in RFQI's released code (Panaganti et al. 2022): a conditional VAE of the
actions, a perturbation of small reach, and the candidate of largest value. The released code draws new candidates at
every step; here a policy holds its draws, so that it is a function of the observation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from offline_robust.networks.actors import Actor, range_shapes, register_range
from offline_robust.networks.mlp import MLP, Buffers, Layers, PairInference, linear
from offline_robust.networks.spec import (
    MAX_CANDIDATES,
    MAX_DIM,
    MAX_LAYERS,
    MAX_WIDTH,
    PolicySpec,
    are_widths,
    layer_shapes,
)

LOG_STD_RANGE = (-4.0, 15.0)
"""Bounds of the VAE encoders' log standard deviation (BCQ's and RFQI's code)."""

DRAW_BOUND = 0.5
"""Latent draws that actions are decoded from are clipped to this on either side (BCQ's and RFQI's code)."""

_ROWS_IN_CACHE = 4_000
"""Candidates that go through the networks together: their activations stay in the processor's cache."""


class GaussianEncoder(nn.Module):
    """An MLP with ReLU after every layer and two heads: mean and log std, clamped, of a latent Gaussian."""

    def __init__(self, inputs: int, hidden: Sequence[int], latent_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = MLP([inputs, *hidden], generator)
        self.mean = linear(hidden[-1], latent_dim, generator)
        self.log_std = linear(hidden[-1], latent_dim, generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std (B, Z) for inputs (B, inputs)."""
        hidden = F.relu(self.trunk(x))
        return self.mean(hidden), self.log_std(hidden).clamp(*LOG_STD_RANGE)


def latent_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """(B,) KL(N(mean, std) || N(0, I)), the mean over latent dimensions."""
    return (0.5 * (mean.square() + (2.0 * log_std).exp() - 1.0) - log_std).mean(-1)


class ActionVAE(nn.Module):
    """The behaviour's actions given the observation: encoder q(z | s, a), decoder a(s, z) within the action range."""

    centre: Tensor
    half_range: Tensor

    def __init__(self, spec: PolicySpec, generator: torch.Generator) -> None:
        super().__init__()
        assert spec.candidates is not None
        o, a, z, hidden = spec.observation_dim, spec.action_dim, spec.candidates.latent_dim, spec.candidates.hidden
        self.encoder = GaussianEncoder(o + a, hidden, z, generator)
        self.decoder = MLP([o + z, *hidden, a], generator)
        register_range(self, spec)

    def decode(self, observations: Tensor, z: Tensor) -> Tensor:
        """Actions (B, A) at draws z (B, Z)."""
        return torch.addcmul(
            self.centre, self.half_range, torch.tanh(self.decoder(torch.cat([observations, z], dim=1)))
        )

    def loss(self, observations: Tensor, actions: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the decoded action + half the latent KL; both are means over batch and dimensions.

        Args:
            observations: (B, O).
            actions: (B, A), logged.
            noise: (B, Z) standard normal.
        """
        mean, log_std = self.encoder(torch.cat([observations, actions], dim=1))
        decoded = self.decode(observations, torch.addcmul(mean, log_std.exp(), noise))
        error, kl = F.mse_loss(decoded, actions), latent_kl(mean, log_std).mean()
        return error + 0.5 * kl, {"train/vae_error": error.detach(), "train/vae_kl": kl.detach()}


class PerturbationNetwork(nn.Module):
    """a + phi * half_range * tanh(mlp(s, a)), clipped to the action range."""

    centre: Tensor
    half_range: Tensor

    def __init__(self, spec: PolicySpec, generator: torch.Generator) -> None:
        super().__init__()
        assert spec.candidates is not None
        self.reach = spec.candidates.reach
        self.network = MLP([spec.observation_dim + spec.action_dim, *spec.hidden, spec.action_dim], generator)
        register_range(self, spec)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The perturbed actions (B, A)."""
        return self.move(actions, self.network(torch.cat([observations, actions], dim=1)))

    def move(self, actions: Tensor, output: Tensor) -> Tensor:
        """What the network's output does to actions."""
        return move(actions, output, self.reach, self.centre, self.half_range)


def move(actions: Tensor, output: Tensor, reach: float, centre: Tensor, half_range: Tensor) -> Tensor:
    """clip(a + reach * half_range * tanh(output))."""
    moved = torch.addcmul(actions, half_range, torch.tanh(output), value=reach)
    return torch.clamp(moved, centre - half_range, centre + half_range)


class CandidateSearch:
    """Candidate actions of many observations and their values, without gradient and in memory that is kept.

    Args:
        decoder: of an `ActionVAE`.
        perturbation: the network of a `PerturbationNetwork`; None leaves the decoded actions.
        critics: N networks of (s, a).
        width: O.
        reach: of the perturbation.
        centre: (A,) of the action range.
        half_range: (A,) of the action range.
        dtype: of the products between hidden layers.
        buffers: kept by the caller.
    """

    def __init__(
        self,
        decoder: MLP | Layers,
        perturbation: MLP | Layers | None,
        critics: Sequence[MLP | Layers],
        width: int,
        reach: float,
        centre: Tensor,
        half_range: Tensor,
        dtype: torch.dtype,
        buffers: Buffers,
    ) -> None:
        self._decoder = PairInference(decoder, width, dtype, buffers)
        self._perturbation = None if perturbation is None else PairInference(perturbation, width, dtype, buffers)
        self._critics = [PairInference(critic, width, dtype, buffers) for critic in critics]
        self._reach, self._centre, self._half_range = reach, centre, half_range

    @torch.no_grad()
    def actions(self, observations: Tensor, draws: Tensor, noise: Tensor | None = None) -> Tensor:
        """Candidates (R * m, A) of observations (R, O).

        Args:
            observations: (R, O).
            draws: (R * m, Z) latent draws, or (1, m, Z) the same for every observation.
            noise: (R * m, A) added before the clip, in half-widths of the action range.
        """
        squashed = torch.tanh(self._decoder(observations, draws))
        if noise is not None:
            squashed = (squashed + noise).clamp_(-1.0, 1.0)
        decoded = torch.addcmul(self._centre, self._half_range, squashed)
        if self._perturbation is None:
            return decoded
        return move(decoded, self._perturbation(observations, decoded), self._reach, self._centre, self._half_range)

    @torch.no_grad()
    def values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(N, R, m) of actions (R * m, A)."""
        return torch.stack([critic(observations, actions).view(len(observations), -1) for critic in self._critics])


class BCQActor(Actor):
    """The best, under one critic, of the perturbed actions decoded from a fixed set of latent draws."""

    kind = "bcq"
    words = "the best of some candidates"
    centre: Tensor
    half_range: Tensor
    draws: Tensor

    @classmethod
    def problem(cls, spec: PolicySpec) -> str:
        """See `Actor.problem`."""
        if spec.candidates is None:
            return "a bcq policy has candidates"
        for name, largest in (("count", MAX_CANDIDATES), ("latent_dim", MAX_DIM)):
            if type(value := getattr(spec.candidates, name)) is not int or not 1 <= value <= largest:
                return f"candidates.{name} is not a whole number from 1 to {largest:,}"
        if not are_widths(spec.candidates.hidden):
            return f"candidates.hidden is not 1 to {MAX_LAYERS} whole numbers from 1 to {MAX_WIDTH:,}"
        if type(spec.candidates.reach) not in (int, float) or not 0.0 <= spec.candidates.reach <= 2.0:
            return "candidates.reach is not a number from 0 to 2"
        return ""

    @classmethod
    def shapes(cls, spec: PolicySpec) -> dict[str, tuple[int, ...]]:
        """See `Actor.shapes`."""
        assert spec.candidates is not None
        o, a, drawn = spec.observation_dim, spec.action_dim, spec.candidates
        shapes = range_shapes(spec) | {"draws": (drawn.count, drawn.latent_dim)}
        shapes |= layer_shapes("decoder", [o + drawn.latent_dim, *drawn.hidden, a])
        shapes |= layer_shapes("perturbation", [o + a, *spec.hidden, a])
        return shapes | layer_shapes("critic", [o + a, *spec.hidden, 1])

    def __init__(self, spec: PolicySpec, generator: torch.Generator) -> None:
        super().__init__()
        assert spec.candidates is not None
        o, a, chosen = spec.observation_dim, spec.action_dim, spec.candidates
        self.decoder = MLP([o + chosen.latent_dim, *chosen.hidden, a], generator)
        self.perturbation = MLP([o + a, *spec.hidden, a], generator)
        self.critic = MLP([o + a, *spec.hidden, 1], generator)
        self.reach, self.width = chosen.reach, o
        register_range(self, spec)
        self.register_buffer("draws", torch.zeros(chosen.count, chosen.latent_dim))
        self._buffers_kept: Buffers = {}

    def forward(self, observations: Tensor) -> Tensor:
        """The action (..., A) for observations (..., O)."""
        search = CandidateSearch(
            self.decoder,
            self.perturbation,
            [self.critic],
            self.width,
            self.reach,
            self.centre,
            self.half_range,
            self.draws.dtype,
            self._buffers_kept,
        )
        rows, draws = observations.reshape(-1, self.width), self.draws.unsqueeze(0)
        chosen = []
        for piece in torch.split(rows, pieces_of(rows, len(self.draws))):
            actions = search.actions(piece, draws)
            best = search.values(piece, actions)[0].argmax(1)
            actions = actions.view(len(piece), len(self.draws), -1)
            chosen.append(actions.gather(1, best.view(-1, 1, 1).expand(-1, 1, actions.shape[2])).squeeze(1))
        return torch.cat(chosen).view(*observations.shape[:-1], -1)


def pieces_of(rows: Tensor, count: int) -> int:
    """How many rows (R, .) of `count` candidates each go through the networks together."""
    return max(1, _ROWS_IN_CACHE // count) if rows.device.type == "cpu" else max(1, len(rows))
