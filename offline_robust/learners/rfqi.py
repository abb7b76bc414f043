"""Robust fitted Q iteration: batch-constrained Q-learning against the worst law in a total-variation ball.

Source: Panaganti, Xu, Kalathil and Ghavamzadeh (NeurIPS 2022), its dual with a fail state and its released code.
Where the release departs from the mathematics we follow the mathematics: docs/algorithms/rfqi.md lists each case.
"""

from __future__ import annotations

from statistics import NormalDist
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from offline_robust.datasets.transitions import Batch, TransitionDataset
from offline_robust.divergences import TotalVariation
from offline_robust.learners.action_search import Info, pair_widths
from offline_robust.learners.base import Problem
from offline_robust.learners.batch_constrained import BatchConstrainedConfig, Width
from offline_robust.learners.fitted_q import FittedQ
from offline_robust.learners.floors import floor_warning
from offline_robust.learners.learned_dual import LearnedDual
from offline_robust.networks import DualNetwork, adamw
from offline_robust.networks.spec import MAX_LAYERS

# --- Config ---------------------------------------------------------------------------------------------------------


class RFQIConfig(BatchConstrainedConfig):
    """Batch-constrained learning plus the radius of the ball and how its dual is learned."""

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


class RFQI(FittedQ):
    """y = r + gamma [(1 - rho) eta - (eta - V(s'))_+ + rho v_min], eta = eta(s, a) the maximiser in the mean.

    The adversary takes the top share rho of the next values and sends it to a fail state of value `v_min`. No value
    may lie below `v_min`, so rewards must be shifted: with v_min = 0, to be nowhere negative.
    """

    Config = RFQIConfig
    config: RFQIConfig
    # The toy's rewards are negative, down to -16: the fail state of value 0 must be the worst place. Critics of a
    # second do not reach values of a hundred, so rewards are scaled into [0, 1].
    toy = MappingProxyType(
        {
            **FittedQ.toy,
            "reward_shift": 16.0,
            "reward_scale": 1.0 / 16.0,
            "critic_learning_rate": 1e-2,
            "reach": 0.5,
            "rho": 0.1,
        }
    )

    def __init__(self, config: RFQIConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.ball = TotalVariation(config.rho, config.v_min)
        self.dual: LearnedDual | None = None
        if config.eta_mode == "per_sample" and config.rho > 0.0:
            inputs, heads = pair_widths(problem)
            # The optimal eta is the (1 - rho)-quantile of the next values.
            start = NormalDist().inv_cdf(min(max(1.0 - config.rho, 1e-3), 1.0 - 1e-3))
            init = problem.streams["init"]
            network = DualNetwork(("real",), inputs, config.dual_hidden, init, actions=heads, start=(start,))
            network.to(problem.device)
            optimiser = adamw([(network.parameters(), config.dual_learning_rate)], 0.0, config.adam_eps)
            self.dual = LearnedDual(self.ball, network, optimiser, steps=config.dual_steps, linear=True)
            self.keep(dual=network, dual_optimiser=optimiser)

    def warnings(self, dataset: TransitionDataset) -> list[str]:
        """See `Learner.warnings`: rewards under which the fail state is not the worst place."""
        config = self.config
        if config.rho == 0.0:
            return []
        consequence = "there the ball holds nothing to fear"
        return floor_warning(config, dataset, config.discount, config.v_min, "learner.v_min", consequence)

    # --- Worst case -------------------------------------------------------------------------------------------------

    def weights(self, batch: Batch) -> Tensor:
        """(B,) 1 for rows whose future enters the target, else 0; 1 for all where it enters none."""
        counts = ~self.ended(batch)
        return torch.where(counts.any(), counts, True).float()

    @torch.no_grad()
    def worst_value(
        self, values: Tensor, weights: Tensor, inputs: Tensor, actions: Tensor | None
    ) -> tuple[Tensor, Info]:
        """(B,) (1 - rho) eta - (eta - V)_+ + rho v_min, row by row.

        Args:
            values: (B,) V(s').
            weights: (B,) of the rows in the mean.
            inputs: what the dual network takes, see `ActionSearch.pairs`.
            actions: its heads.
        """
        if self.config.rho == 0.0:
            return values, {}
        info: Info = {}
        if self.dual is None:
            eta = self.batch_quantile(values, weights)
            worst = self.ball.linear_dual(values, eta)
        else:
            worst, (eta,), info = self.dual.worst_case(inputs, values, actions)
        info["dual/eta"] = eta.mean()
        info["dual/gap"] = (weights * (values - worst)).sum() / weights.sum()
        info["dual/below_v_min"] = (weights * (values < self.config.v_min)).sum() / weights.sum()
        return worst, info

    def batch_quantile(self, values: Tensor, weights: Tensor) -> Tensor:
        """(B,) the same number in all rows: the (1 - rho)-quantile of the rows' values, v_min at least."""
        (eta,) = self.ball.linear_optimum(values, weights / weights.sum())
        return eta.clamp_min(self.config.v_min).expand_as(values)

    # --- Update -----------------------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a minibatch; returns 0-d tensors."""
        # 1. The behaviour's model follows the data.
        info = self.search.fit(batch)
        # 2. V(s'): the largest value of an action near the data's.
        following = self.following(batch)
        values = self.next_values(following)
        # 3. The dual eta(s, a) follows V(s'); the worst expectation over the ball.
        weights, (inputs, actions) = self.weights(batch), self.search.pairs(batch)
        if self.dual is not None:
            info |= self.dual.fit(inputs, values, weights, actions)
        future, found = self.worst_value(values, weights, inputs, actions)
        # 4. The critics regress to r + gamma * future.
        info |= self.regress(batch, self.target(batch, future))
        # 5. The perturbation climbs the first critic.
        info |= self.search.improve(self.critics, batch.observations)
        # 6. Targets and the deployed policy follow.
        self.follow()
        return info | found | {"train/value": values.mean()}
