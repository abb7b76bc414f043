"""Laws with known worst cases, shared by the tests of the ambiguity sets."""

from __future__ import annotations

import math

import numpy as np
import torch

from offline_robust.divergences import (
    KL,
    ChiSquare,
    Contamination,
    CressieRead,
    CVaR,
    Divergence,
    TotalVariation,
    Wasserstein1,
)

A = ((0.2, 0.3, 0.5), (0.0, 1.0, 2.0))
B = ((0.2,) * 5, (1.0, 2.0, 3.5, 4.0, 10.0))
C = ((0.05, 0.15, 0.3, 0.5), (-10.0, 0.0, 1.0, 2.0))
LAWS = {"A": A, "B": B, "C": C}
"""(probabilities, values) of rmpo_ddrq 4.2: plain, with a rare good outcome, with a rare bad one."""

FOUR = ((0.4, 0.3, 0.2, 0.1), (1.0, 2.0, 5.0, 10.0))
"""Test law A of dr_sac_rfqi section 5."""


def tensors(law: tuple[tuple[float, ...], tuple[float, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(values, probabilities) in float64."""
    return torch.tensor(law[1], dtype=torch.float64), torch.tensor(law[0], dtype=torch.float64)


def line_costs(points: int) -> torch.Tensor:
    """(m, m) distance of indices."""
    index = torch.arange(points, dtype=torch.float64)
    return (index.unsqueeze(1) - index).abs()


def balls(points: int, lowest: float = -1e3) -> list[Divergence]:
    """One ball of every kind, neither empty nor saturated for laws in general; `lowest` is below all values."""
    return [
        KL(0.3),
        CressieRead(1.5, 0.2),
        CressieRead(2.0, 0.3),
        CressieRead(4.0, 0.3),
        ChiSquare(0.4),
        TotalVariation(0.25),
        TotalVariation(0.25, v_min=lowest),
        CVaR(0.6),
        Contamination(0.2),
        Contamination(0.2, v_min=lowest),
        Wasserstein1(0.4, line_costs(points)),
    ]


def ball_of_radius(kind: int, radius: float, points: int) -> Divergence:
    """The kinds of `balls`, at a radius in [0, 1] of which 1 is large."""
    return [
        KL(4.0 * radius),
        CressieRead(1.5, 4.0 * radius),
        CressieRead(2.0, 4.0 * radius),
        CressieRead(4.0, 4.0 * radius),
        ChiSquare(4.0 * radius),
        TotalVariation(radius),
        TotalVariation(radius, v_min=-1e3),
        CVaR(1.0 / (1.0 + 4.0 * radius)),
        Contamination(radius),
        Contamination(radius, v_min=-1e3),
        Wasserstein1(4.0 * radius, line_costs(points)),
    ][kind]


KINDS = len(balls(2))


def divergence_of(ball: Divergence, law: np.ndarray, nominal: np.ndarray) -> float:
    """How far a law is from the nominal one, in the ball's own terms; inside means at most `ball.radius`."""
    ratio = law[nominal > 0] / nominal[nominal > 0]
    p = nominal[nominal > 0]
    if isinstance(ball, KL):
        return float(np.sum(p * np.where(ratio > 0, ratio * np.log(np.maximum(ratio, 1e-300)), 0.0)))
    if isinstance(ball, ChiSquare):
        return float(np.sum(p * (ratio - 1) ** 2))
    if isinstance(ball, CressieRead):
        k = ball.k
        return float(np.sum(p * (ratio**k - k * ratio + k - 1)) / (k * (k - 1)))
    if isinstance(ball, CVaR):
        return float(ratio.max() - 1.0)
    if isinstance(ball, TotalVariation):
        return float(0.5 * np.abs(law - nominal).sum())
    if isinstance(ball, Contamination):
        return float(1.0 - ratio.min())
    raise TypeError(type(ball).__name__)


def is_f_divergence(ball: Divergence) -> bool:
    """Whether the ball is cut out by a mean of a smooth function of the likelihood ratio."""
    return isinstance(ball, KL | CressieRead)


def standard_deviation(values: torch.Tensor, law: torch.Tensor) -> float:
    """Of values under a law."""
    mean = (law * values).sum()
    return math.sqrt(float((law * (values - mean) ** 2).sum()))
