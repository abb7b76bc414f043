"""How familiar an observation is: a VAE of the data's observations, and a threshold on its score.

Source: PQL-BCQ (Liu et al. 2020, "Provably good batch off-policy reinforcement learning without great exploration"),
as in the FQI baseline of RFQI's released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from offline_robust.models.base import Scales
from offline_robust.networks import MLP, GaussianEncoder, adamw, load_optimiser
from offline_robust.networks.candidates import latent_kl

QUANTILE = 0.02
"""The threshold that is found by itself lies at this quantile of the scores of next observations (PQL-BCQ)."""

THRESHOLD_ROWS = 100_000
"""Next observations that the threshold is estimated from (PQL-BCQ)."""


class StateDensity:
    """score(s) = -mean squared error of the reconstruction - KL(q(z | s) || N(0, I)) / 2, means over dimensions.

    Two departures from the released code: the score takes the encoder's mean where that draws z, so that it is a
    function of s; and observations are standardised unless asked otherwise, so that every dimension counts alike.

    Args:
        observation_dim: O; the latent has 2 O dimensions.
        hidden: hidden widths of encoder and decoder.
        learning_rate: Adam's.
        scales: the dataset's; None leaves observations as they are.
        threshold: b, fixed; None estimates it.
        generator: draws the initial weights.
        device: where tensors live.
    """

    def __init__(
        self,
        observation_dim: int,
        hidden: Sequence[int],
        learning_rate: float,
        scales: Scales | None,
        threshold: float | None,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        z = 2 * observation_dim
        self.networks = nn.ModuleDict(
            {
                "encoder": GaussianEncoder(observation_dim, hidden, z, generator),
                "decoder": MLP([z, *hidden, observation_dim], generator),
            }
        ).to(device)
        self.latent_dim = z
        self.optimiser = adamw([(self.networks.parameters(), learning_rate)], 0.0)
        self.mean = torch.zeros(observation_dim, device=device) if scales is None else scales.mean.to(device)
        self.std = torch.ones(observation_dim, device=device) if scales is None else scales.std.to(device)
        self.fixed = threshold is not None
        self.threshold = torch.tensor(threshold or 0.0, device=device)
        self.rows = torch.zeros((), device=device)

    def update(self, observations: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step on observations (B, O); returns 0-d tensors under ``model/`` keys."""
        noise = torch.randn((len(observations), self.latent_dim), generator=generator, device=observations.device)
        error, kl = (term.mean() for term in self._terms(observations, noise))
        self.optimiser.zero_grad(set_to_none=True)
        (error + 0.5 * kl).backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return {"model/state_error": error.detach(), "model/state_kl": kl.detach()}

    @torch.no_grad()
    def score(self, observations: Tensor) -> Tensor:
        """(B,) for observations (B, O): the higher, the more like the data."""
        error, kl = self._terms(observations, None)
        return -(error + 0.5 * kl)

    @torch.no_grad()
    def familiarity(self, observations: Tensor, count: Tensor, sharpness: float) -> Tensor:
        """(B,) sigmoid(sharpness (score - b)), from 0 to 1; the estimate of b follows the first calls.

        Args:
            observations: (B, O).
            count: (B,) bool: which rows the threshold is estimated from.
            sharpness: 100 in PQL-BCQ.
        """
        scores = self.score(observations)
        if not self.fixed:
            ranked = torch.where(count, scores, math.inf).sort().values
            rows = count.sum()
            place = (QUANTILE * rows).ceil().long().clamp_min(1) - 1
            # The mean of the batches' quantiles: what all rows at once would give, up to the batches' noise.
            weight = torch.where(self.rows < THRESHOLD_ROWS, rows / (self.rows + rows).clamp_min(1.0), 0.0)
            found = ranked.gather(0, place.view(1)).squeeze(0)
            self.threshold.lerp_(torch.where(rows > 0, found, self.threshold), weight)
            self.rows += rows
        return torch.sigmoid(sharpness * (scores - self.threshold))

    def state(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        return {
            "networks": self.networks.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "threshold": self.threshold,
            "rows": self.rows,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave."""
        self.networks.load_state_dict(state["networks"])
        load_optimiser(self.optimiser, state["optimiser"])
        self.threshold.copy_(state["threshold"])
        self.rows.copy_(state["rows"])

    def _terms(self, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B,) squared error and latent KL, means over dimensions; z is the encoder's mean without noise."""
        x = (observations - self.mean) / self.std
        mean, log_std = self.networks["encoder"](x)
        z = mean if noise is None else torch.addcmul(mean, log_std.exp(), noise)
        return (self.networks["decoder"](z) - x).square().mean(1), latent_kl(mean, log_std)
