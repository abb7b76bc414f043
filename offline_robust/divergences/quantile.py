"""Balls that are solved by sorting: total variation (RFQI), CVaR, and contamination."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from offline_robust.divergences.base import (
    Bounds,
    Divergence,
    DualKind,
    checked,
    expectation,
    on_minimum,
    on_support,
)


class _MovedToTheFloor(Divergence):
    """Balls that move mass to the worst place there is: a fail state of value `v_min`, or the support's minimum."""

    def __init__(self, name: str, radius: float, v_min: float | None) -> None:
        self.radius = checked(f"the {name} radius", radius, 0.0, 1.0)
        self.v_min = None if v_min is None else checked("v_min", v_min, -math.inf, math.inf)
        # Without a fail state the mass stays on the nominal law's own support.
        self.needs_stochastic_nominal = v_min is None

    def _repr(self, name: str) -> str:
        return f"{name}({self.radius:g})" if self.v_min is None else f"{name}({self.radius:g}, v_min={self.v_min:g})"

    @abstractmethod
    def _kept(self, values: Tensor, law: Tensor) -> tuple[Tensor, Tensor]:
        """What of the nominal law stays in place, (..., m), of total mass 1 - radius, and the dual (...)."""

    def worst_case(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Divergence.worst_case`. A value below `v_min` takes the fail state's place."""
        values, _ = on_support(values, weights)
        with torch.no_grad():
            law, lowest, dual = self._solve(values, weights)
        value = expectation(values, law, lowest)
        if self.v_min is not None:
            value = value + self.radius * (self.v_min - lowest.squeeze(-1)).clamp(max=0.0)
        return value, dual

    def worst_case_weights(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """See `Divergence.worst_case_weights`; with a fail state below all values the rows sum to 1 - radius."""
        with torch.no_grad():
            return self._solve(values, weights)[0]

    def _solve(self, values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The worst law on the points (..., m), their minimum (..., 1), and the dual (...)."""
        values, law = on_support(values, weights)
        lowest = values.amin(-1, keepdim=True)
        kept, dual = self._kept(values, law)
        moved = self.radius * on_minimum(values, law, lowest)
        if self.v_min is not None:
            moved = torch.where(lowest <= self.v_min, moved, 0.0)
        return kept + moved, lowest, dual

    def _floor(self, samples: Tensor) -> Tensor:
        lowest = samples.amin(-1)
        return lowest if self.v_min is None else lowest.clamp(max=self.v_min)

    def _require_floor(self, name: str) -> float:
        if self.v_min is None:
            raise ValueError(f"{name} has a form that is linear in the expectation only with a lower bound: give v_min")
        return self.v_min


class TotalVariation(_MovedToTheFloor):
    """inf { E_Q V : TV(Q, P) <= rho } = sup_eta eta - E_P(eta - V)_+ - rho (eta - floor), TV half the L1 distance.

    The adversary takes mass rho from the top of the values and puts it at the floor. With `v_min` the floor is a fail
    state of that value which every law of the ball may reach (RFQI: 0), and `v_min` must be a lower bound of the
    values. Without, it is the lowest value that P holds possible.

    The optimal eta is a (1 - rho)-quantile of V.

    Source: RFQI (Panaganti et al., NeurIPS 2022), its dual with fail state 0; the general floor is ours.

    Args:
        radius: rho in [0, 1].
        v_min: value of the fail state; None for the minimum over the support.
    """

    profile_dual = "real"

    def __init__(self, radius: float, v_min: float | None = None) -> None:
        super().__init__("total-variation", radius, v_min)
        self.linear_duals = None if v_min is None else ("real",)

    def __repr__(self) -> str:
        return self._repr("TotalVariation")

    def profile(self, samples: Tensor, dual: Tensor, weights: Tensor | None = None) -> Tensor:
        """eta - E_P(eta - V)_+ - rho (eta - floor) at eta = `dual`."""
        samples, law = on_support(samples, weights)
        short = (law * (dual.unsqueeze(-1) - samples).clamp_min(0.0)).sum(-1)
        return dual - short - self.radius * (dual - self._floor(samples))

    def linear_dual(self, x: Tensor, *duals: Tensor) -> Tensor:
        """eta - (eta - x)_+ - rho (eta - v_min), dual (eta,)."""
        v_min = self._require_floor("total variation")
        (eta,) = duals
        return eta - (eta - x).clamp_min(0.0) - self.radius * (eta - v_min)

    def linear_optimum(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        """(eta,)."""
        return (self.worst_case(values, weights)[1],)

    def linear_bounds(self, low: float, high: float) -> Bounds:
        """eta in [low, high]."""
        return ((low, high),)

    def saturation_radius(self, p_min: float) -> float:
        """1 - p_min; with a fail state 1, from where the value is `v_min`."""
        return 1.0 - p_min if self.v_min is None else 1.0

    def _kept(self, values: Tensor, law: Tensor) -> tuple[Tensor, Tensor]:
        return lowest_mass(values, law, 1.0 - self.radius)


class Contamination(_MovedToTheFloor):
    """inf over Q of E_Q V for Q = (1 - R) P + R P', any P': (1 - R) E_P V + R floor.

    The floor is a fail state of value `v_min`, or without it the lowest value that P holds possible. There is no dual
    variable: a share R of all mass moves, wherever it was.

    Source: Wang and Zou (2021), R-contamination; the general floor is ours.

    Args:
        radius: R in [0, 1].
        v_min: value of the fail state; None for the minimum over the support.
    """

    profile_dual = None

    def __init__(self, radius: float, v_min: float | None = None) -> None:
        super().__init__("contamination", radius, v_min)
        self.linear_duals: tuple[DualKind, ...] | None = None if v_min is None else ()

    def __repr__(self) -> str:
        return self._repr("Contamination")

    def profile(self, samples: Tensor, dual: Tensor, weights: Tensor | None = None) -> Tensor:
        """(1 - R) E_P V + R floor, whatever `dual`."""
        samples, law = on_support(samples, weights)
        return (1.0 - self.radius) * (law * samples).sum(-1) + self.radius * self._floor(samples)

    def linear_dual(self, x: Tensor, *duals: Tensor) -> Tensor:
        """(1 - R) x + R v_min: no dual variables."""
        v_min = self._require_floor("contamination")
        return (1.0 - self.radius) * x + self.radius * v_min

    def linear_optimum(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()

    def linear_bounds(self, low: float, high: float) -> Bounds:
        """Nothing."""
        return ()

    def saturation_radius(self, p_min: float) -> float:
        """1; if P(V = min) is 1, any radius."""
        return 1.0 if p_min < 1.0 or self.v_min is not None else 0.0

    def _kept(self, values: Tensor, law: Tensor) -> tuple[Tensor, Tensor]:
        return (1.0 - self.radius) * law, torch.zeros_like(values[..., 0])


class CVaR(Divergence):
    """inf { E_Q V : dQ/dP <= 1 / alpha } = sup_eta eta - E_P(eta - V)_+ / alpha: the mean of the lowest mass alpha.

    Source: Rockafellar and Uryasev (2000).

    Args:
        alpha: level in (0, 1]; 1 is the nominal law alone. As a radius, which grows with the ball: 1 / alpha - 1,
            by how much likelihood ratios may exceed one.
    """

    needs_stochastic_nominal = True
    profile_dual = "real"
    linear_duals = ("real",)

    def __init__(self, alpha: float) -> None:
        self.alpha = checked("alpha of CVaR", alpha, 0.0, 1.0, open_low=True)
        self.radius = 1.0 / self.alpha - 1.0

    def __repr__(self) -> str:
        return f"CVaR({self.alpha:g})"

    def worst_case(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Divergence.worst_case`; the dual variable is eta, an alpha-quantile."""
        values, _ = on_support(values, weights)
        with torch.no_grad():
            law, eta = self._solve(values, weights)
        return expectation(values, law, values.detach().amin(-1, keepdim=True)), eta

    def worst_case_weights(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """See `Divergence.worst_case_weights`."""
        with torch.no_grad():
            return self._solve(values, weights)[0]

    def profile(self, samples: Tensor, dual: Tensor, weights: Tensor | None = None) -> Tensor:
        """eta - E_P(eta - V)_+ / alpha at eta = `dual`."""
        samples, law = on_support(samples, weights)
        return dual - (law * (dual.unsqueeze(-1) - samples).clamp_min(0.0)).sum(-1) / self.alpha

    def linear_dual(self, x: Tensor, *duals: Tensor) -> Tensor:
        """eta - (eta - x)_+ / alpha, dual (eta,)."""
        (eta,) = duals
        return eta - (eta - x).clamp_min(0.0) / self.alpha

    def linear_optimum(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        """(eta,)."""
        return (self.worst_case(values, weights)[1],)

    def linear_bounds(self, low: float, high: float) -> Bounds:
        """eta in [low, high]."""
        return ((low, high),)

    def saturation_radius(self, p_min: float) -> float:
        """1 / p_min - 1: alpha = p_min."""
        return 1.0 / p_min - 1.0

    def _solve(self, values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        kept, eta = lowest_mass(*on_support(values, weights), self.alpha)
        # Less than alpha only by rounding, or where alpha is below a float's resolution of the lowest weight.
        return kept / kept.sum(-1, keepdim=True), eta


def lowest_mass(values: Tensor, law: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """The part of a law (..., m) that carries its lowest values, of total `mass`, and the highest value in it (...).

    Points without weight must not lie above the others (`on_support`).
    """
    order = values.argsort(-1)
    ordered = law.gather(-1, order)
    before = (ordered.cumsum(-1) - ordered).clamp_min(0.0)
    kept = torch.zeros_like(law).scatter(-1, order, torch.minimum((mass - before).clamp_min(0.0), ordered))
    return kept, torch.maximum(values.masked_fill(kept <= 0.0, -math.inf).amax(-1), values.amin(-1))
