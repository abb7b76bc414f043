"""The worst expectation over a ball: exact, by a learned dual, from one next state, or by moving next states.

A learner holds one of these and does not know which. `fit` trains what is learned; calling it gives the worst value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from offline_robust.divergences import KL, Divergence, GradientWasserstein
from offline_robust.learners.learned_dual import LearnedDual

_PROBE = 32
"""Pairs of a batch on which a learned dual is compared with the exact one."""

Info = dict[str, Tensor]


@dataclass
class Future:
    """What follows the rows of a batch under the nominal law. States and values are computed when first asked for."""

    pairs: Tensor
    """(B, O + A) observations and actions."""
    value: Callable[[Tensor], Tensor]
    """V, from (..., O) to (...)."""
    draw_states: Callable[[], Tensor]
    """Next states: (B, m, O) draws of a model, or (B, O) as logged."""
    draw_values: Callable[[], Tensor]
    """V at them: (B, m) or (B,)."""
    counts: Tensor | None = None
    """(B,) float: 1 for rows that something follows; None weighs all rows alike."""

    @cached_property
    def states(self) -> Tensor:
        """The next states."""
        return self.draw_states()

    @cached_property
    def values(self) -> Tensor:
        """V at them."""
        return self.draw_values()


class WorstCase(ABC):
    """The worst expectation of V over a ball around the nominal law."""

    def fit(self, future: Future) -> Info:
        """One round of training of what is learned, if anything is."""
        return {}

    @abstractmethod
    def __call__(self, future: Future) -> tuple[Tensor, Info]:
        """The worst value (B,) of what follows each row, without gradient, and what to watch."""


class Exact(WorstCase):
    """Solved for each pair, from m draws of the nominal law."""

    def __init__(self, ball: Divergence) -> None:
        self.ball = ball

    @torch.no_grad()
    def __call__(self, future: Future) -> tuple[Tensor, Info]:
        """See `WorstCase`."""
        worst, dual = self.ball.worst_case(future.values)
        # At radius 0 the best dual may be infinite.
        tells = self.ball.radius > 0.0 and self.ball.profile_dual is not None
        info = {"dual/min": dual.amin(), "dual/max": dual.amax()} if tells else {}
        if tells and isinstance(self.ball, KL):
            info["dual/beta"] = dual.mean()
        return worst, info | watched(self.ball, future.values, worst)


class Functional(WorstCase):
    """The dual objective at a learned dual, from m draws of the nominal law: a lower bound in the mean."""

    def __init__(self, dual: LearnedDual) -> None:
        self.dual = dual

    def fit(self, future: Future) -> Info:
        """See `WorstCase.fit`."""
        return self.dual.fit(future.pairs, future.values)

    @torch.no_grad()
    def __call__(self, future: Future) -> tuple[Tensor, Info]:
        """See `WorstCase`."""
        worst, _, info = self.dual.worst_case(future.pairs, future.values)
        exact = self.dual.ball.worst_case(future.values[:_PROBE])[0]
        info |= {"dual/at_bound": info["dual/saturated"], "dual/shortfall": (exact - worst[:_PROBE]).mean()}
        return worst, info | watched(self.dual.ball, future.values, worst)


class Linear(WorstCase):
    """From one next state for each pair: the form of the dual that is linear in the expectation.

    Args:
        ball: the ambiguity set.
        dual: learned from what is logged; None where the form has no dual variable.
    """

    def __init__(self, ball: Divergence, dual: LearnedDual | None) -> None:
        self.ball, self.dual = ball, dual

    def fit(self, future: Future) -> Info:
        """See `WorstCase.fit`."""
        return {} if self.dual is None else self.dual.fit(future.pairs, future.values, future.counts)

    @torch.no_grad()
    def __call__(self, future: Future) -> tuple[Tensor, Info]:
        """See `WorstCase`."""
        values = future.values
        if self.dual is None:
            worst, info = self.ball.linear_dual(values), Info()
        else:
            worst, _, info = self.dual.worst_case(future.pairs, values)
        counts = torch.ones_like(values) if future.counts is None else future.counts
        rows = counts.sum().clamp_min(1.0)
        info["dual/gap"] = (counts * (values - worst)).sum() / rows
        if self.ball.v_min is not None:
            info["dual/below_v_min"] = (counts * (values < self.ball.v_min)).sum() / rows
        return worst, info


class Move(WorstCase):
    """The worst V within a short move of each next state; over draws of a model, the mean of them."""

    def __init__(self, moves: GradientWasserstein) -> None:
        self.moves = moves

    @torch.no_grad()
    def __call__(self, future: Future) -> tuple[Tensor, Info]:
        """See `WorstCase`."""
        worst, slope = self.moves.worst_case(future.value, future.states)
        info = {"dual/gap": self.moves.radius * slope.mean(), "dual/slope": slope.mean()}
        return worst.mean(1) if worst.ndim == 2 else worst, info


def watched(ball: Divergence, values: Tensor, worst: Tensor) -> Info:
    """What to watch of worst values (B,) of draws (B, m)."""
    info = {
        "dual/gap": (values.mean(1) - worst).mean(),
        "dual/value_std": values.std(1, correction=0).mean(),
        "dual/saturated": (worst <= values.amin(1)).float().mean(),
    }
    if ball.v_min is not None:
        info["dual/below_v_min"] = (values < ball.v_min).float().mean()
    return info
