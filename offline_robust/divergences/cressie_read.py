"""The Cressie-Read balls of DRQ and DDRQ, {Q : D_k(Q || P) <= radius}, and the chi-square ball among them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offline_robust.divergences.base import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    Bounds,
    Divergence,
    checked,
    expectation,
    on_minimum,
    on_support,
    value_range,
)
from offline_robust.divergences.roots import increasing_roots

_MAX_LOG_RATIO = 20.0
_MAX_LOG_POWER = 80.0


class CressieRead(Divergence):
    """inf { E_Q V : E_P f_k(dQ/dP) <= rho } = sup_eta eta - c E_P[(eta - V)_+^k*]^(1/k*), for k > 1.

    f_k(t) = (t^k - k t + k - 1) / (k (k - 1)), k* = k / (k - 1), c = (1 + k (k - 1) rho)^(1/k). Since E_P[dQ/dP] = 1,
    the ball is {||dQ/dP||_k <= c}. The worst law has dQ/dP proportional to (eta - V)_+^(1/(k-1)): with t =
    1 / (eta - min V), log ||dQ_t/dP||_k^k grows from 0 to (1 - k) log P(V = min), and its root is sought for all rows
    at once, on a log-log scale, where it starts as a straight line of slope 2. k -> 1 is the KL ball.

    Source: DRQ (arXiv 2301.11721), Lemma 3.1; Duchi and Namkoong (2021), equations 6 to 8.

    Args:
        k: greater than 1, at most 100. DRQ: 2.
        radius: rho >= 0. For k = 2, D is half the usual chi-square divergence: see `ChiSquare`.
        iterations: the most root-finding steps taken; about 10 settle rows for k <= 2, 20 to 60 for larger k,
            whose law has a vertical tangent wherever a point loses its weight.
    """

    needs_stochastic_nominal = True
    profile_dual = "real"
    linear_duals = ("real", "positive")

    def __init__(self, k: float, radius: float, iterations: int = 60) -> None:
        self.k = checked("k of a Cressie-Read ball (k = 1 is the KL ball)", k, 1.0, 100.0, open_low=True)
        self.radius = checked("the Cressie-Read radius", radius, 0.0, math.inf)
        self.iterations = iterations
        self._rho = self.radius  # in the normalisation of f_k
        self._set_norm()

    def _set_norm(self) -> None:
        self._log_power = math.log1p(self.k * (self.k - 1.0) * self._rho)  # log c^k
        self.norm = math.exp(self._log_power / self.k)
        self.conjugate = self.k / (self.k - 1.0)

    def __repr__(self) -> str:
        return f"CressieRead({self.k:g}, {self.radius:g})"

    def worst_case(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Divergence.worst_case`; the dual variable is eta (inf at radius 0, the minimum when saturated)."""
        values, _ = on_support(values, weights)
        with torch.no_grad():
            law, eta = self._solve(values, weights)
        return expectation(values, law, values.detach().amin(-1, keepdim=True)), eta

    def worst_case_weights(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """See `Divergence.worst_case_weights`."""
        with torch.no_grad():
            return self._solve(values, weights)[0]

    def profile(self, samples: Tensor, dual: Tensor, weights: Tensor | None = None) -> Tensor:
        """eta - c E_P[(eta - V)_+^k*]^(1/k*) at eta = `dual`."""
        samples, law = on_support(samples, weights)
        lowest = samples.amin(-1, keepdim=True)
        reach = dual.unsqueeze(-1) - lowest
        # This close to the minimum the gradient of the quotient below would be zero times infinity.
        inside = reach > torch.finfo(samples.dtype).eps * (samples.detach().amax(-1, keepdim=True) - lowest.detach())
        # In units of eta - min V, where the power mean cannot over- or underflow; below the minimum it is eta alone.
        share = (1.0 - (samples - lowest) / torch.where(inside, reach, 1.0)).clamp_min(0.0)
        mean = (law * share.pow(self.conjugate)).sum(-1)
        mean = torch.where(inside.squeeze(-1), mean, 1.0)
        return dual - self.norm * reach.clamp_min(0.0).squeeze(-1) * mean.pow(1.0 / self.conjugate)

    def linear_dual(self, x: Tensor, *duals: Tensor) -> Tensor:
        """eta - c ((eta - x)_+^k* w^(1-k*) / k* + w / k), duals (eta, w > 0); w* = E_P[(eta* - V)_+^k*]^(1/k*).

        Where the likelihood ratio that a draw stands for passes e^20 (less for k > 4) the power goes on as its
        tangent: the form is then that of the ball cut at such ratios, with a finite gradient that points back.
        Derivation: Young's inequality with a free scale, docs/algorithms/divergences.md.
        """
        eta, w = duals
        share = ((eta - x) / w).clamp_min(0.0)
        most = math.exp((self.k - 1.0) * min(_MAX_LOG_RATIO, _MAX_LOG_POWER / self.k))
        near = share.clamp(max=most)
        beyond = (share - most).clamp_min(0.0)
        power = near.pow(self.conjugate) / self.conjugate + math.pow(most, self.conjugate - 1.0) * beyond
        value: Tensor = eta - self.norm * w * (power + 1.0 / self.k)
        return value

    def linear_optimum(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        """(eta, w): see `linear_dual`; w is kept within 1e-6 and 1e4 ranges of the values."""
        with torch.no_grad():
            values, law = on_support(values, weights)
            unit, lowest = value_range(values), values.amin(-1, keepdim=True)
            eta = self._solve(values, weights)[1].unsqueeze(-1)
            eta = torch.minimum(eta, lowest + LARGEST_SCALE * unit)
            # In units of the reach, where no power can overflow.
            reach = eta - lowest
            share = (1.0 - (values - lowest) / torch.where(reach > 0.0, reach, 1.0)).clamp_min(0.0)
            w = reach * (law * share.pow(self.conjugate)).sum(-1, keepdim=True).pow(1.0 / self.conjugate)
            return eta.squeeze(-1), torch.maximum(w, SMALLEST_SCALE * unit).squeeze(-1)

    def linear_bounds(self, low: float, high: float) -> Bounds:
        """eta in [low, (c high - low) / (c - 1)], w in (0, c (high - low) / (c - 1)] (DRQ, Lemma C.1)."""
        most = min(self.norm / max(self.norm - 1.0, 1e-300), LARGEST_SCALE) * (high - low)
        return (low, low + most), (0.0, most)

    def saturation_radius(self, p_min: float) -> float:
        """(p_min^(1-k) - 1) / (k (k - 1))."""
        return math.expm1((1.0 - self.k) * math.log(p_min)) / (self.k * (self.k - 1.0))

    def _solve(self, values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """The worst-case law (..., m) and eta (...)."""
        values, law = on_support(values, weights)
        lowest = values.amin(-1, keepdim=True)
        if self._rho == 0.0:
            return law, torch.full_like(lowest.squeeze(-1), math.inf)
        bottom = on_minimum(values, law, lowest)
        p_min = (law * (bottom > 0.0)).sum(-1, keepdim=True)
        saturated = (1.0 - self.k) * p_min.log() <= self._log_power
        # Values in units of their own range, from zero up: the search below is free of scale.
        scale = value_range(values)
        excess = (values - lowest) / scale
        t, across = self._tilt(excess, law, p_min)
        tilted = self._mixed(t, across, excess, law)
        eta = torch.where(saturated, lowest, lowest + scale / t)
        return torch.where(saturated, bottom, tilted), eta.squeeze(-1)

    def _mixed(self, t: Tensor, across: Tensor, excess: Tensor, law: Tensor) -> Tensor:
        """The worst law, from the points on both sides of the root.

        For large k a point on the verge of losing its weight has it or has it not between one floating-point number t
        and the next: the law in between is a mixture of the two. The dual objective is flat in t and so exact, and the
        worst law's mean must equal it.
        """
        upper, _ = _log_moments((t * excess).clamp_max(1.0), law, 1.0 / (self.k - 1.0))
        worst = -torch.expm1(self._log_power / self.k + upper / self.conjugate) / t
        near, far = self._tilted(t, excess, law), self._tilted(across, excess, law)
        mean = (near * excess).sum(-1, keepdim=True)
        gap = mean - (far * excess).sum(-1, keepdim=True)
        share = ((mean - worst) / torch.where(gap == 0.0, 1.0, gap)).clamp(0.0, 1.0)
        return torch.lerp(near, far, share)

    def _tilted(self, t: Tensor, excess: Tensor, law: Tensor) -> Tensor:
        tilted = law * (1.0 - t * excess).clamp_min(0.0).pow(1.0 / (self.k - 1.0))
        return tilted / tilted.sum(-1, keepdim=True)

    def _tilt(self, excess: Tensor, law: Tensor, p_min: Tensor) -> tuple[Tensor, Tensor]:
        """Solves log E_P[L_t^k] = log c^k for t (..., 1), where L_t is proportional to (1 - t excess)_+^(1/(k-1)).

        Returns the point nearest to the root and the last one across it.
        """
        eps, tiny = torch.finfo(excess.dtype).eps, torch.finfo(excess.dtype).tiny
        power, target = 1.0 / (self.k - 1.0), self._log_power

        def error(theta: Tensor) -> tuple[Tensor, Tensor]:
            upper, lower = _log_moments((theta.exp() * excess).clamp_max(1.0), law, power)
            found = upper - self.k * lower
            tolerance = 4.0 * eps * (target + upper.abs() + self.k * lower.abs())
            return found.clamp_min(tiny).log() - math.log(target), tolerance / target

        # eta is at most (c max - min) / (c - 1) (DRQ, Lemma C.1), and above the minimum's successor.
        c = self.norm
        least = math.log(max(math.expm1(target / self.k) / c, tiny))
        successor = excess.masked_fill(excess <= 0.0, 1.0).amin(-1, keepdim=True)
        high = -successor.log().clamp_min(math.log(tiny))
        low = torch.full_like(high, least).clamp(max=high)
        # Exact for k = 2 while all points keep weight: eta = mean + std / sqrt(2 rho).
        mean = (law * excess).sum(-1, keepdim=True)
        std = (law * (excess - mean).square()).sum(-1, keepdim=True).sqrt()
        start = -(mean + std * power / math.sqrt(2.0 * self._rho)).clamp_min(tiny).log()
        start = start.clamp(low, high)
        top = ((1.0 - self.k) * p_min.log()).clamp_min(tiny).log() - math.log(target)
        ends = 2.0 * (low - start).clamp(max=-0.1), top.clamp_min(0.1)
        root, across = increasing_roots(error, low, high, ends, start, self.iterations)
        return root.exp(), across.exp()


class ChiSquare(CressieRead):
    """inf { E_Q V : E_P[(dQ/dP - 1)^2] <= radius }: the usual chi-square divergence.

    D_2 of `CressieRead` is half of it: `ChiSquare(radius)` is `CressieRead(2, radius / 2)`. While no point loses all
    its weight, the value is mean - sqrt(radius) std.

    Args:
        radius: >= 0.
        iterations: see `CressieRead`.
    """

    def __init__(self, radius: float, iterations: int = 60) -> None:
        super().__init__(2.0, checked("the chi-square radius", radius, 0.0, math.inf), iterations)
        self._rho = 0.5 * self.radius
        self._set_norm()

    def __repr__(self) -> str:
        return f"ChiSquare({self.radius:g})"

    def saturation_radius(self, p_min: float) -> float:
        """1 / p_min - 1."""
        return 1.0 / p_min - 1.0


def _log_moments(lost: Tensor, law: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """log E_P[b^(power + 1)] and log E_P[b^power], (..., 1) each, of b = 1 - `lost` in [0, 1], where 1 has weight.

    Summed as departures from one where both are near it: for small radii both logs nearly vanish, and plain sums would
    round them away. Summed plainly where they are not: there the departures would hide points of tiny weight.
    """
    base = 1.0 - lost
    if power == 1.0:
        plain, departure = base, -lost
    else:
        exponent = power * torch.log1p(-lost)
        plain, departure = exponent.exp(), exponent.expm1()
    return (
        _log_mean(plain * base, departure * base - lost, law),
        _log_mean(plain, departure, law),
    )


def _log_mean(plain: Tensor, departure: Tensor, law: Tensor) -> Tensor:
    """(..., 1) log E_P[plain], where `departure` is plain - 1 without rounding."""
    below = (law * departure).sum(-1, keepdim=True)
    return torch.where(below < -0.5, (law * plain).sum(-1, keepdim=True).log(), below.clamp_min(-0.75).log1p())
