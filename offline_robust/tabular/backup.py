"""The robust Bellman operator of one finite problem: every pair's worst law, all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from torch import Tensor

from offline_robust.divergences import Contamination, Divergence, TotalVariation, Wasserstein1
from offline_robust.errors import ConfigError
from offline_robust.tabular.mdp import Rewards, Transitions, TransitionsLike, as_problem

_MAX_TRANSPORT = 2**24


class Swept(NamedTuple):
    """One exact sweep."""

    q: Tensor
    """(S, A)."""
    law: Tensor
    """(S, A, K) the worst laws."""
    constant: Tensor
    """(S, A) q less the discounted expectation of v under the worst laws: rewards, and a fail state's share."""


class RobustBackup:
    """The operator of one problem; see `robust_value_iteration` for its arguments and what it refuses."""

    def __init__(
        self,
        P: TransitionsLike,
        r: ArrayLike,
        discount: float,
        divergence: Divergence | None,
        terminal: ArrayLike | None,
        everywhere: bool,
    ) -> None:
        transitions, rewards = as_problem(P, r, every_state=isinstance(divergence, Wasserstein1))
        if divergence is not None and not isinstance(divergence, Divergence):
            raise ConfigError(f"divergence: a ball of laws on next states, such as KL(0.1); {divergence!r} is none")
        if isinstance(divergence, Wasserstein1):
            transitions, rewards = _for_transport(divergence, transitions, rewards)
        self.transitions, self.discount, self.divergence = transitions, discount, divergence
        self.shape: tuple[int, int] = transitions.successors.shape[:2]
        ends = np.zeros(self.shape[0], bool) if terminal is None else np.asarray(terminal, bool)
        if ends.shape != self.shape[:1]:
            raise ConfigError(f"terminal: one bool for each of {self.shape[0]} states, got shape {ends.shape}")
        self._ends = torch.from_numpy(ends)
        self._floats = everywhere and divergence is not None
        if self._floats:
            _check_everywhere(divergence, rewards)
        self._after = torch.from_numpy(transitions.successors)
        self._law = torch.from_numpy(transitions.probabilities)
        self._certain = torch.from_numpy(rewards.certain)
        self._entering = None if rewards.entering is None else torch.from_numpy(rewards.entering)

    def __call__(self, v: Tensor) -> Swept:
        """The sweep at v (S,)."""
        ahead = self._ahead(v).requires_grad_()
        # By the envelope theorem the gradient is the worst law: the search runs once for both.
        value = self._worst(ahead, v)
        (law,) = torch.autograd.grad(value.sum(), ahead)
        scale = 1.0 if self._entering is not None else self.discount
        q = (self._certain + scale * value.detach()).masked_fill(self._ends[:, None], 0.0)
        law = law.masked_fill(self._ends[:, None, None], 0.0)
        return Swept(q, law, q - self.discount * (law * v[self._after]).sum(-1))

    def frozen(self, swept: Swept) -> Callable[[Tensor], Tensor]:
        """The sweep (S,) to (S, A) if the worst laws were those of `swept`, whatever the values."""
        states, actions, width = swept.law.shape
        starts = np.arange(0, states * actions * width + 1, width)
        # Most sweeps are these: a product with a compressed matrix is four times as fast as gathering.
        entries = (swept.law.numpy().ravel(), self.transitions.successors.ravel(), starts)
        matrix = csr_matrix(entries, shape=(states * actions, states))
        return lambda v: swept.constant + self.discount * torch.from_numpy(matrix @ v.numpy()).view(states, actions)

    def _ahead(self, v: Tensor) -> Tensor:
        """(S, A, K) what the law weighs."""
        after = v[self._after]
        return after if self._entering is None else self._entering + self.discount * after

    def _worst(self, ahead: Tensor, v: Tensor) -> Tensor:
        ball = self.divergence
        if ball is None:
            return (self._law * ahead).sum(-1)
        if self._floats:
            lowest = float(v.min())
            ball = (
                TotalVariation(ball.radius, lowest)
                if isinstance(ball, TotalVariation)
                else Contamination(ball.radius, lowest)
            )
        width = ahead.shape[-1]
        if not isinstance(ball, Wasserstein1) or self._law.numel() * width <= _MAX_TRANSPORT or ball.costs.ndim > 2:
            return ball.worst_case(ahead, self._law)[0]
        # A transport problem needs K x K numbers a row.
        rows = max(1, _MAX_TRANSPORT // (width * width))
        flat = (ahead.reshape(-1, width), self._law.reshape(-1, width))
        pairs = zip(*(torch.split(part, rows) for part in flat), strict=True)
        return torch.cat([ball.worst_case(x, p)[0] for x, p in pairs]).view(self.shape)


def _for_transport(ball: Wasserstein1, transitions: Transitions, rewards: Rewards) -> tuple[Transitions, Rewards]:
    """The problem in the layout of the costs: between all states, or between the successors listed."""
    states, actions, width = transitions.successors.shape
    shape = tuple(ball.costs.shape)
    if shape == (states, states):
        entering = None
        if rewards.entering is not None:
            if not _dense(transitions):
                raise ConfigError("Wasserstein1: rewards on entering need one for each state that mass may move to")
            entering = rewards.entering
        everywhere = np.broadcast_to(np.arange(states), (states, actions, states)).copy()
        return Transitions(everywhere, transitions.dense), Rewards(rewards.certain, entering)
    if shape in ((width, width), (states, actions, width, width)):
        return transitions, rewards
    raise ConfigError(
        f"Wasserstein1: costs between the {states} states, ({states}, {states}), or between the {width} successors of "
        f"a pair, ({width}, {width}) or ({states}, {actions}, {width}, {width}); got {shape}"
    )


def _dense(transitions: Transitions) -> bool:
    states = len(transitions.successors)
    return bool(transitions.successors.shape[2] == states and (transitions.successors == np.arange(states)).all())


def _check_everywhere(divergence: Divergence | None, rewards: Rewards) -> None:
    if not isinstance(divergence, TotalVariation | Contamination) or divergence.v_min is not None:
        raise ConfigError(f"everywhere is for TotalVariation and Contamination without v_min, not {divergence!r}")
    if rewards.entering is not None:
        raise ConfigError("everywhere: a state that is no successor has no reward on entering; give r as (S, A)")
