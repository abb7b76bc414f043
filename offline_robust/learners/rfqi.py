"""Robust fitted Q iteration: batch-constrained Q-learning against the worst law in a total-variation ball.

Source: Panaganti, Xu, Kalathil and Ghavamzadeh (NeurIPS 2022), its dual with a fail state and its released code.
Where the release departs from the mathematics we follow the mathematics: docs/algorithms/rfqi.md lists each case.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from offline_robust.datasets.transitions import Batch, TransitionDataset
from offline_robust.divergences import TotalVariation
from offline_robust.learners.base import Problem
from offline_robust.learners.bcq import BCQ, BCQConfig, Width
from offline_robust.learners.floors import floor_warning
from offline_robust.networks import DualNetwork, adamw
from offline_robust.networks.dual import require_rows
from offline_robust.networks.spec import MAX_LAYERS

# --- Config ---------------------------------------------------------------------------------------------------------


class RFQIConfig(BCQConfig):
    """BCQ's learning plus the radius of the ball and how its dual is learned."""

    name: Literal["rfqi"] = "rfqi"
    rho: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Total-variation radius: the share of mass that may fail. RFQI: 0.5, 0.3 (HalfCheetah).",
    )
    eta_mode: Literal["per_sample", "batch_quantile"] = Field(
        "per_sample",
        description="per_sample: eta(s, a) of a network, as in the paper; batch_quantile: one number, the quantile of "
        "V over the minibatch, which is what the released code's broadcast amounts to.",
    )
    dual_hidden: tuple[Width, ...] = Field(
        (64, 64),
        min_length=1,
        max_length=MAX_LAYERS,
        description="Hidden widths of the dual network. RFQI: 64, 64.",
    )
    dual_learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam: dual network. RFQI: 1e-3, 3e-4 (CartPole).")
    dual_steps: int = Field(
        5,
        ge=1,
        le=1000,
        description="Steps of the dual network for each update. Ours: it keeps its weights. RFQI's code: a new network "
        "each time, up to 10,000 steps.",
    )

    @property
    def label(self) -> str:
        """See `LearnerConfig.label`."""
        return f"{self.name} rho={self.rho:g}"


# --- Learner --------------------------------------------------------------------------------------------------------


class RFQI(BCQ):
    """y = r + gamma [(1 - rho) eta - (eta - V(s'))_+ + rho v_min], eta = eta(s, a) the maximiser in the mean.

    The adversary takes the top share rho of the next values and sends it to a fail state of value `v_min`. No value
    may lie below `v_min`, so rewards must be shifted: with v_min = 0, to be nowhere negative.
    """

    Config = RFQIConfig
    config: RFQIConfig

    def __init__(self, config: RFQIConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.divergence = TotalVariation(config.rho, config.v_min)
        self.dual: DualNetwork | None = None
        if config.eta_mode == "per_sample" and config.rho > 0.0:
            inputs = problem.observation_dim + (0 if self.discrete else problem.action_dim)
            # The optimal eta is the (1 - rho)-quantile of the next values.
            level = NormalDist().inv_cdf(min(max(1.0 - config.rho, 1e-3), 1.0 - 1e-3))
            self.dual = DualNetwork(
                ("real",),
                inputs,
                config.dual_hidden,
                problem.streams["init"],
                actions=problem.action_dim if self.discrete else 0,
                start=(level,),
            ).to(problem.device)
            self.dual_optimiser = adamw([(self.dual.parameters(), config.dual_learning_rate)], 0.0, config.adam_eps)
            self.keep(dual=self.dual, dual_optimiser=self.dual_optimiser)

    def warnings(self, dataset: TransitionDataset) -> list[str]:
        """See `Learner.warnings`: rewards under which the fail state is not the worst place."""
        config = self.config
        if config.rho == 0.0:
            return []
        consequence = "there the ball holds nothing to fear"
        return floor_warning(config, dataset, config.discount, config.v_min, "learner.v_min", consequence)

    # --- What follows a transition ----------------------------------------------------------------------------------

    def future(self, batch: Batch, values: Tensor, counts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `BCQ.future`: the dual objective at eta."""
        if self.config.rho == 0.0:
            return values, {}
        # A mean over the rows whose future counts; over all of them when it is none.
        weights = torch.where(counts.any(), counts, True).float()
        if self.dual is None:
            eta = self.batch_quantile(values, weights)
            info = {"dual/eta": eta.mean()}
        else:
            eta, info = self._learned(self.dual, batch, values, weights)
        worst = robust_value(self.divergence, values, eta)
        info["dual/gap"] = (weights * (values - worst)).sum() / weights.sum()
        info["dual/below_v_min"] = (weights * (values < self.config.v_min)).sum() / weights.sum()
        return worst, info

    def batch_quantile(self, values: Tensor, weights: Tensor) -> Tensor:
        """(B,) the same number in all rows: the (1 - rho)-quantile of the rows' values, v_min at least."""
        (eta,) = self.divergence.linear_optimum(values, weights / weights.sum())
        return eta.clamp_min(self.config.v_min).expand_as(values)

    def dual_loss(self, dual: DualNetwork, batch: Batch, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """- the mean of (1 - rho) eta - (eta - V)_+, in standard deviations of V; and eta (B,)."""
        (eta,) = self.duals(dual, batch)
        return dual.loss(robust_value(self.divergence, values, eta), weights), eta

    def duals(self, dual: DualNetwork, batch: Batch) -> tuple[Tensor, ...]:
        """The dual network at the batch's pairs."""
        if self.discrete:
            return dual(batch.observations, batch.actions)  # type: ignore[no-any-return]
        return dual(torch.cat([batch.observations, batch.actions], dim=1))  # type: ignore[no-any-return]

    def _learned(
        self, dual: DualNetwork, batch: Batch, values: Tensor, weights: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A few steps of the dual network, then eta."""
        dual.observe(values, weights)
        with torch.enable_grad():
            for _ in range(self.config.dual_steps):
                loss, _ = self.dual_loss(dual, batch, values, weights)
                self.dual_optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                self.dual_optimiser.step()
        with torch.no_grad():
            (eta,) = self.duals(dual, batch)
            info = {"dual/loss": loss.detach(), "dual/eta": eta.mean()}
            return eta, info | dual.info((eta,), values, self.config.v_min)


def robust_value(divergence: TotalVariation, values: Tensor, eta: Tensor) -> Tensor:
    """(B,) eta - (eta - V)_+ - rho (eta - v_min), row by row.

    Args:
        divergence: the ball, with its fail state.
        values: (B,) V(s').
        eta: (B,).

    Raises:
        ValueError: the shapes are not both (B,). (The released code broadcasts (B,) against (B, 1).)
    """
    require_rows(values=values, eta=eta)
    return divergence.linear_dual(values, eta)
