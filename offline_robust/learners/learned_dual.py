"""Dual variables of a ball, learned as functions of (s, a) beside the values that they are duals of."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

from offline_robust.divergences import Divergence, DualKind
from offline_robust.errors import ConfigError
from offline_robust.networks import DualNetwork, LogDualNetwork, descend
from offline_robust.networks.dual import REAL_REACH, require_rows

_START_REACH = 10.0
"""A dual starts within this many standard deviations, and e to this times them: half of what the network reaches."""

_MISSED = 0.1
"""How much more than the true loss a ball may take because its best dual is out of reach."""

Objective = Callable[..., Tensor]
"""Duals (B,), one argument each, to the dual objective (B,)."""


class LearnedDual:
    """A dual network and its optimiser: a few steps a batch towards the largest mean dual objective.

    It serves both dual forms of a ball: `profile`, from several samples of the nominal law for each pair, and
    `linear_dual`, from one next state.

    Args:
        ball: the ambiguity set.
        network: duals of the inputs (O + A) for continuous actions, (O) and the action for discrete ones.
        optimiser: of the network.
        steps: steps for each batch.
        linear: whether the objective is `linear_dual`.
    """

    def __init__(
        self,
        ball: Divergence,
        network: DualNetwork | LogDualNetwork,
        optimiser: torch.optim.Optimizer,
        *,
        steps: int,
        linear: bool,
    ) -> None:
        self.ball, self.network, self.optimiser, self.steps, self.linear = ball, network, optimiser, steps, linear

    def objective(self, values: Tensor, *duals: Tensor) -> Tensor:
        """The dual objective (B,), row by row.

        Args:
            values: (B,) of one next state each where it is linear, else (B, m) of several.
            duals: (B,) each.

        Raises:
            ValueError: linear, and not all are (B,). (RFQI's released code broadcasts (B,) against (B, 1).)
        """
        if not self.linear:
            return self.ball.profile(values, *duals)
        for dual in duals:
            require_rows(values=values, dual=dual)
        return self.ball.linear_dual(values, *duals)

    @torch.enable_grad()
    def fit(
        self, inputs: Tensor, values: Tensor, weights: Tensor | None = None, actions: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Moves the network towards the best duals of a batch.

        Args:
            inputs: (B, O + A), or (B, O) for discrete actions.
            values: (B,) or (B, m), without gradient.
            weights: (B,) weights >= 0; None weighs all rows alike.
            actions: (B,) int64, for discrete actions only.

        Returns:
            ``dual/loss``, the last one.
        """
        self.network.observe(values, weights, None if self.linear else values.std(correction=0))
        for _ in range(self.steps):
            loss = self.network.loss(self.objective(values, *self.network(inputs, actions)), weights)
            descend(self.optimiser, loss)
        return {"dual/loss": loss.detach()}

    @torch.no_grad()
    def worst_case(
        self, inputs: Tensor, values: Tensor, actions: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]:
        """The dual objective (B,) at the network's duals, a lower bound in the mean; the duals; and what to watch."""
        duals = self.network(inputs, actions)
        return self.objective(values, *duals), duals, self.network.info(duals, values, self.ball.v_min)


def dual_kinds(ball: Divergence, linear: bool) -> tuple[DualKind, ...]:
    """Kinds of the dual variables that a form of a ball has; none where it has no such form."""
    if linear:
        return ball.linear_duals or ()
    return () if ball.profile_dual is None else (ball.profile_dual,)


def require_reach(ball: Divergence) -> None:
    """Refuses a ball whose best real dual, for a normal law, lies so far out that a dual network cannot come near.

    Cressie-Read's eta is about 1 / ((k - 1) sqrt(2 rho)) standard deviations above the mean.

    Raises:
        ConfigError: the network's best would exceed the true loss by more than a tenth.
    """
    if ball.profile_dual != "real" or ball.radius == 0.0:
        return
    grid = _normal_grid()
    worst, best = ball.worst_case(grid)
    reached = ball.profile(grid, best.clamp(-REAL_REACH, REAL_REACH))
    if worst - reached > -_MISSED * worst:
        raise ConfigError(
            f"{ball}: its best eta lies {float(best):.0f} standard deviations from the mean, a dual network reaches "
            f"{REAL_REACH:g}; take a larger radius, kl, or dual: exact where next states come from a model"
        )


def normal_start(ball: Divergence, linear: bool) -> list[float]:
    """The best duals of a standard normal law, as a dual network puts them out: positive ones as logs."""
    grid = _normal_grid()
    best = ball.linear_optimum(grid) if linear else (ball.worst_case(grid)[1],)
    start = []
    for kind, dual in zip(dual_kinds(ball, linear), best, strict=False):
        value = float(dual) if kind == "real" else math.log(max(float(dual), 1e-30))
        start.append(min(max(value, -_START_REACH), _START_REACH))
    return start


def normal_shift(ball: Divergence) -> float:
    """By how many standard deviations a ball lowers the mean of a normal law: KL of radius delta by sqrt(2 delta)."""
    return max(0.0, -float(ball.worst_case(_normal_grid())[0]))


def _normal_grid() -> Tensor:
    """(200,) a standard normal law as equally likely points."""
    return torch.tensor([NormalDist().inv_cdf((i + 0.5) / 200) for i in range(200)], dtype=torch.float64)
