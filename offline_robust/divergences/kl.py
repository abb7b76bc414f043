"""The Kullback-Leibler ball of DR-SAC: {Q : KL(Q || P) <= radius}."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from offline_robust.divergences.base import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    Bounds,
    Divergence,
    on_support,
    value_range,
)

_MAX_EXPONENT = 20.0


class KL(Divergence):
    """inf { E_Q V : KL(Q || P) <= delta } = sup_{beta >= 0} -beta log E_P[exp(-V / beta)] - beta delta.

    The optimal law is P tilted by exp(-V / beta). With t = 1 / beta, KL(Q_t || P) grows from 0 to -log P(V = min):
    the root of KL(Q_t || P) = delta is found for all rows at once by Newton steps on log KL against log t, which is
    a straight line of slope 2 near t = 0, with bisection wherever a step leaves its bracket or shrinks too slowly.

    Source: DR-SAC (arXiv 2506.12622), the dual of its robust soft Bellman operator; Hu and Hong (2013).

    Args:
        radius: delta >= 0, in nats.
        iterations: the most root-finding steps taken; 5 to 8 settle typical rows, 24 the nastiest uniform ones tried
            (heavy tails, two clusters, radii up to 0.98 of saturation), 48 skewed weights. Settled rows stop moving
            and, on the CPU, the search stops with them.
    """

    needs_stochastic_nominal = True
    profile_dual = "positive"
    linear_duals = ("real", "positive")

    def __init__(self, radius: float, iterations: int = 48) -> None:
        if not (math.isfinite(radius) and radius >= 0.0):
            raise ValueError(f"the KL radius must be finite and not negative, got {radius}")
        self.radius = radius
        self.iterations = iterations

    def __repr__(self) -> str:
        return f"KL({self.radius:g})"

    def worst_case(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Divergence.worst_case`; the dual variable is beta (inf at radius 0, 0 when saturated)."""
        if weights is not None:
            values, _ = on_support(values, weights)
        with torch.no_grad():
            law, beta = self._solve(values, weights)
            lowest = values.amin(-1, keepdim=True)
        # Relative to the minimum: small differences of large values would drown in rounding otherwise.
        return lowest.squeeze(-1) + (law * (values - lowest)).sum(-1), beta

    def worst_case_weights(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """See `Divergence.worst_case_weights`."""
        with torch.no_grad():
            return self._solve(values, weights)[0]

    def profile(self, samples: Tensor, dual: Tensor, weights: Tensor | None = None) -> Tensor:
        """f(beta) = min - beta (log E_P exp(-(V - min) / beta) + delta), for finite beta = `dual` > 0."""
        samples, law = on_support(samples, weights)
        lowest = samples.amin(-1)
        tilt = (lowest.unsqueeze(-1) - samples) / dual.unsqueeze(-1)
        log_mean = tilt.logsumexp(-1) - math.log(samples.shape[-1]) if weights is None else _log_mean(tilt, law)
        return lowest - dual * (log_mean + self.radius)

    def linear_dual(self, x: Tensor, *duals: Tensor) -> Tensor:
        """eta - lam delta - lam (exp((eta - x) / lam) - 1), duals (eta, lam > 0).

        Above an exponent of 20 the exponential goes on as its tangent, with a finite gradient that points back: the
        form is then that of the ball cut at likelihood ratios of e^20.
        """
        eta, lam = duals
        exponent = (eta - x) / lam
        # Not `exponent` less its clamp: gradients of e^20 that cancel would round the others away in float32.
        beyond = (exponent - _MAX_EXPONENT).clamp_min(0.0)
        loss = torch.expm1(exponent.clamp(max=_MAX_EXPONENT)) + math.exp(_MAX_EXPONENT) * beyond
        return eta - lam * self.radius - lam * loss

    def linear_optimum(self, values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        """(eta, lam): see `linear_dual`; lam = beta, kept within 1e-6 and 1e4 ranges of the values."""
        with torch.no_grad():
            values, law = on_support(values, weights)
            lowest, unit = values.amin(-1, keepdim=True), value_range(values)
            beta = self.worst_case(values, weights)[1].unsqueeze(-1)
            lam = torch.minimum(torch.maximum(beta, SMALLEST_SCALE * unit), LARGEST_SCALE * unit)
            tilted = torch.expm1((lowest - values) / lam)
            eta = lowest - lam * (law * tilted).sum(-1, keepdim=True).log1p()
            return eta.squeeze(-1), lam.squeeze(-1)

    def linear_bounds(self, low: float, high: float) -> Bounds:
        """eta in [low, high], lam in (0, (high - low) / delta]."""
        return (low, high), (0.0, min(1.0 / max(self.radius, 1e-300), LARGEST_SCALE) * (high - low))

    def saturation_radius(self, p_min: float) -> float:
        """-log p_min: for m equally likely distinct values, log m."""
        return -math.log(p_min)

    def _solve(self, values: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """The worst-case law (..., m) and beta (...)."""
        values, law = on_support(values, weights)
        mean = (law * values).sum(-1, keepdim=True)
        std = (law * (values - mean).square()).sum(-1, keepdim=True).sqrt()
        if self.radius == 0.0:
            return law, torch.full_like(mean.squeeze(-1), math.inf)
        lowest = values.amin(-1, keepdim=True)
        at_minimum = values == lowest
        p_min = (law * at_minimum).sum(-1, keepdim=True)
        saturated = p_min.log() + self.radius >= 0.0
        # Values in units of their own spread, from zero up: the search below is free of scale.
        scale = torch.where(std > 0.0, std, 1.0)
        excess = (values - lowest) / scale
        t = _tilt(excess, law, self.radius, self.iterations)
        tilted = law * torch.exp(-t * excess)
        tilted = tilted / tilted.sum(-1, keepdim=True)
        tilted = torch.where(saturated, law * at_minimum / p_min, tilted)
        beta = torch.where(saturated, 0.0, scale / t)
        return tilted, beta.squeeze(-1)


def _tilt(excess: Tensor, law: Tensor, radius: float, iterations: int) -> Tensor:
    """Solves KL(Q_t || P) = radius for t (..., 1), where Q_t is P tilted by exp(-t excess)."""
    eps, tiny = torch.finfo(excess.dtype).eps, torch.finfo(excess.dtype).tiny
    # KL(Q_t || P) <= t (E_P - E_Qt) <= t E_P[excess] bounds the root from below. From above: beyond t = 1e8 / std
    # all that floating point can tell from the minimum has vanished from the law.
    low = (radius / (law * excess).sum(-1, keepdim=True).clamp_min(tiny)).clamp(max=1e7).log()
    high = torch.full_like(low, math.log(1e8))
    theta = torch.full_like(low, 0.5 * math.log(2.0 * radius)).clamp(low, high)
    last = high - low
    for _ in range(iterations):
        t = theta.exp()
        tilted = law * torch.exp(-t * excess)
        mass = tilted.sum(-1, keepdim=True)
        weighted = tilted * excess
        first = weighted.sum(-1, keepdim=True) / mass
        second = (weighted * excess).sum(-1, keepdim=True) / mass
        cost = t * first
        divergence = -cost - mass.log()
        error = divergence - radius
        settled = error.abs() <= 4.0 * eps * (1.0 + cost)
        below = error < 0.0
        low, high = torch.where(below, theta, low), torch.where(below, high, theta)
        # Newton on log KL against log t: d log KL / d log t = t^2 Var_t / KL.
        slope = t.square() * (second - first.square())
        newton = divergence * (radius / divergence.clamp_min(tiny)).log() / slope.clamp_min(tiny)
        step = theta + newton
        good = (step > low) & (step < high) & (newton.abs() <= 0.5 * last)
        proposal = torch.where(good, step, 0.5 * (low + high))
        last = torch.where(settled, last, (proposal - theta).abs())
        theta = torch.where(settled, theta, proposal)
        # Asking costs nothing on the CPU; on an accelerator it would stall the queue.
        if settled.device.type == "cpu" and bool(settled.all()):
            break
    return theta.exp()


def _log_mean(exponents: Tensor, weights: Tensor) -> Tensor:
    return (exponents + weights.log()).logsumexp(-1)
