"""Wasserstein balls: exact on a finite support, and to first order in a continuous state space."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from offline_robust.divergences.base import Bounds, Divergence, checked, expectation, nominal_law

_NO_LINEAR_FORM = "Wasserstein-1 has no dual form in the value of one next state; `c_transform` needs all values"


class Wasserstein1(Divergence):
    """inf { E_Q V : W_1(Q, P) <= rho } = sup_{lam >= 0} E_P[min_j (V_j + lam C(., j))] - lam rho on a finite support.

    Mass moves from point i to point j at a cost C_ij for each unit, and rho pays for the whole move. A point of weight
    zero may receive mass: the support is that of the costs.

    The dual is concave and piecewise linear in lam. Every lam gives a transport plan, and so a line that bounds the
    dual from above; the search keeps one plan that costs more than rho and one that costs less, tries the lam where
    their lines cross, and is done when the dual lies on both. The mixture of the two plans that costs rho is optimal.
    Every other step halves the bracket of lam instead, so that the number of steps is bounded.

    Source: Mohajerin Esfahani and Kuhn (2018) for the dual; the search is ours.

    Args:
        radius: rho >= 0, in units of the costs.
        costs: (m, m), or (..., m, m) with a matrix for each row: not negative, zeros on the diagonal.
        iterations: the most steps taken; typical rows settle in 5 to 10.
    """

    needs_stochastic_nominal = False
    profile_dual = "positive"
    linear_duals = None

    def __init__(self, radius: float, costs: Tensor, iterations: int = 80) -> None:
        self.radius = checked("the Wasserstein radius", radius, 0.0, math.inf)
        self.costs = torch.as_tensor(costs, dtype=torch.float64)
        if self.costs.ndim < 2 or self.costs.shape[-1] != self.costs.shape[-2] or self.costs.numel() == 0:
            raise ValueError(f"Wasserstein costs must be a square matrix, got shape {tuple(self.costs.shape)}")
        diagonal = self.costs.diagonal(dim1=-2, dim2=-1)
        if not bool(torch.isfinite(self.costs).all()) or bool((self.costs < 0.0).any()) or bool(diagonal.any()):
            raise ValueError("Wasserstein costs must be finite and not negative, with zeros on the diagonal")
        self.iterations = iterations

    def __repr__(self) -> str:
        return f"Wasserstein1({self.radius:g}, costs={tuple(self.costs.shape)})"

    def worst_case(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Divergence.worst_case`; the dual variable is lam (0 when saturated)."""
        with torch.no_grad():
            law, lam = self._solve(values, weights)
            lowest = values.amin(-1, keepdim=True)
        return expectation(values, law, lowest), lam

    def worst_case_weights(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """See `Divergence.worst_case_weights`."""
        with torch.no_grad():
            return self._solve(values, weights)[0]

    def c_transform(self, values: Tensor, dual: Tensor) -> Tensor:
        """(..., m) min_j (V_j + lam C_ij): what a draw of point i is worth at the price `dual` (...)."""
        price = dual.unsqueeze(-1).unsqueeze(-1)
        return (values.unsqueeze(-2) + price * self._costs(values)).amin(-1)

    def profile(self, samples: Tensor, dual: Tensor, weights: Tensor | None = None) -> Tensor:
        """E_P[c_transform] - lam rho at lam = `dual`; `samples` are the values of all points of the support."""
        law = nominal_law(samples, weights)
        return (law * self.c_transform(samples, dual)).sum(-1) - dual * self.radius

    def linear_dual(self, x: Tensor, *duals: Tensor) -> Tensor:
        """Refused: a draw's worth depends on the values of all other points (`c_transform`)."""
        raise ValueError(_NO_LINEAR_FORM)

    def linear_optimum(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        """Refused, as `linear_dual` is."""
        raise ValueError(_NO_LINEAR_FORM)

    def linear_bounds(self, low: float, high: float) -> Bounds:
        """Refused, as `linear_dual` is."""
        raise ValueError(_NO_LINEAR_FORM)

    def saturation_radius(self, p_min: float) -> float:
        """(1 - p_min) times the largest cost: the minimum is reached there, or before."""
        return (1.0 - p_min) * float(self.costs.max())

    def _costs(self, values: Tensor) -> Tensor:
        if self.costs.shape[-1] != values.shape[-1]:
            raise ValueError(f"Wasserstein costs of {self.costs.shape[-1]} points for {values.shape[-1]} values")
        return self.costs.to(values.device, values.dtype)

    def _solve(self, values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """The worst-case law (..., m) and lam (...)."""
        law = nominal_law(values, weights)
        lowest = values.amin(-1, keepdim=True)
        unit = values.amax(-1, keepdim=True) - lowest
        unit = torch.where(unit > 0.0, unit, 1.0)
        costs = self._costs(values)
        furthest = float(self.costs.max()) or 1.0
        # Values and costs in units of their own ranges: the search is free of scale.
        problem = _Transport((values - lowest) / unit, costs / furthest, law, self.radius / furthest)
        dear, cheap, lam = problem.solve(self.iterations)
        paid = dear.cost - cheap.cost
        share = torch.where(paid > 0.0, (problem.budget - cheap.cost) / torch.where(paid > 0.0, paid, 1.0), 1.0)
        share = share.clamp(0.0, 1.0).unsqueeze(-1)
        mixed = share * problem.law_after(dear) + (1.0 - share) * problem.law_after(cheap)
        return mixed, lam * unit.squeeze(-1) / furthest


class _TransportPlan(NamedTuple):
    target: Tensor
    """(..., m) where each point's mass goes."""
    value: Tensor
    """(...) expectation of the values after the move."""
    cost: Tensor
    """(...) what the move costs."""


class _Transport:
    """One batch of scale-free transport problems."""

    def __init__(self, values: Tensor, costs: Tensor, law: Tensor, budget: float) -> None:
        self.values, self.law, self.budget = values, law, budget
        self.costs = costs.expand(*values.shape, values.shape[-1])

    def plan(self, score: Tensor) -> _TransportPlan:
        """Every point's mass goes where its row of `score` (..., m, m) is lowest."""
        target = score.argmin(-1)
        cost = (self.law * self.costs.gather(-1, target.unsqueeze(-1)).squeeze(-1)).sum(-1)
        return _TransportPlan(target, (self.law * self.values.gather(-1, target)).sum(-1), cost)

    def at(self, lam: Tensor) -> _TransportPlan:
        """The best plan at a price lam (...)."""
        return self.plan(self.values.unsqueeze(-2) + lam.unsqueeze(-1).unsqueeze(-1) * self.costs)

    def law_after(self, plan: _TransportPlan) -> Tensor:
        """(..., m) where all mass is after the move."""
        return torch.zeros_like(self.law).scatter_add(-1, plan.target, self.law)

    def solve(self, iterations: int) -> tuple[_TransportPlan, _TransportPlan, Tensor]:
        """A plan that costs the budget or more, one that costs no more, both best at the same lam, and that lam."""
        values, costs = self.values.unsqueeze(-2), self.costs
        # Free: to the nearest of the lowest points. Priceless: only where moving costs nothing.
        nearest = self.plan(costs.masked_fill(values > 0.0, math.inf).expand_as(costs))
        stay = self.plan(values.masked_fill(costs > 0.0, math.inf).expand_as(costs))
        gain = ((values.transpose(-1, -2) - values) / costs).masked_fill(costs <= 0.0, 0.0)
        low, high = torch.zeros_like(nearest.cost), gain.flatten(-2).amax(-1)
        dear, cheap = nearest, stay
        saturated = nearest.cost <= self.budget
        done = saturated | (stay.cost >= self.budget)
        eps = torch.finfo(self.values.dtype).eps
        for step in range(iterations):
            crossing = (cheap.value - dear.value) / (dear.cost - cheap.cost).clamp_min(eps * eps)
            crossing = torch.minimum(torch.maximum(crossing, low), high)
            lam = crossing if step % 2 == 0 else 0.5 * (low + high)
            found = self.at(lam)
            if step % 2 == 0:
                bound = dear.value + lam * dear.cost
                done = done | (found.value + lam * found.cost >= bound - 4.0 * eps * (1.0 + bound))
            # Asking costs nothing on the CPU; on an accelerator it would stall the queue.
            if done.device.type == "cpu" and bool(done.all()):
                break
            above = ~done & (found.cost >= self.budget)
            below = ~done & (found.cost < self.budget)
            dear, cheap = _chosen(above, found, dear), _chosen(below, found, cheap)
            low, high = torch.where(above, lam, low), torch.where(below, lam, high)
        lam = (cheap.value - dear.value) / (dear.cost - cheap.cost).clamp_min(eps * eps)
        lam = torch.where(saturated, 0.0, torch.minimum(torch.maximum(lam, low), high))
        lam = torch.where(~saturated & (stay.cost >= self.budget), high, lam)  # no budget: moving must not pay
        return dear, _chosen(saturated, dear, cheap), lam


def _chosen(where: Tensor, one: _TransportPlan, other: _TransportPlan) -> _TransportPlan:
    target = torch.where(where.unsqueeze(-1), one.target, other.target)
    return _TransportPlan(target, torch.where(where, one.value, other.value), torch.where(where, one.cost, other.cost))


class GradientWasserstein:
    """The worst value within a short move of the next state, to first order: V(s') - radius * ||scale * grad V(s')||.

    The ball holds every law that moves each next state by at most `radius`, measured in units of `scale` (the
    Wasserstein ball of order infinity). It needs V itself, not its values at samples, and no spread: around a
    deterministic model it is as large as around any other. For V linear within reach it is exact; otherwise it is off
    by at most radius^2 / 2 times the largest curvature there. A network of linear layers and ReLUs is piecewise linear.

    Source: the first-order expansion of Wasserstein balls, for example Gao, Chen and Kleywegt (2022); pointwise form
    and units are ours.

    Args:
        radius: >= 0, in units of `scale`.
        scale: (O,) unit of each dimension of the state, for example the one-step std of the data; ones when None.
        norm: how the moves of the dimensions add up: ``l2`` (Euclidean) or ``linf`` (every dimension by itself).
    """

    needs_stochastic_nominal = False

    def __init__(self, radius: float, scale: Tensor | None = None, norm: Literal["l2", "linf"] = "l2") -> None:
        self.radius = checked("the Wasserstein radius", radius, 0.0, math.inf)
        if norm not in ("l2", "linf"):
            raise ValueError(f"the norm of moves is l2 or linf, not {norm!r}")
        if scale is not None and (scale.ndim != 1 or not bool((torch.isfinite(scale) & (scale >= 0.0)).all())):
            raise ValueError("the scale of moves must be one finite number a dimension, none negative")
        self.scale, self.norm = scale, norm

    def __repr__(self) -> str:
        return f"GradientWasserstein({self.radius:g}, norm={self.norm})"

    def worst_case(self, value: Callable[[Tensor], Tensor], states: Tensor) -> tuple[Tensor, Tensor]:
        """The worst value of each state.

        Args:
            value: V, from (..., O) to (...), each state by itself.
            states: (..., O) next states.

        Returns:
            The worst value (...) and the norm of the scaled gradient (...), both without gradient.
        """
        with torch.enable_grad():
            at = states.detach().requires_grad_()
            found = value(at)
            (slope,) = torch.autograd.grad(found.sum(), at)
        slope = slope if self.scale is None else slope * self.scale
        # The dual norm of the moves'.
        steepness = torch.linalg.vector_norm(slope, ord=2 if self.norm == "l2" else 1, dim=-1)
        return found.detach() - self.radius * steepness, steepness
