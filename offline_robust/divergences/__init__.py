"""Ambiguity sets: balls of laws around a nominal law, and the worst expectation over them."""

from offline_robust.divergences.base import Divergence, DualKind
from offline_robust.divergences.cressie_read import ChiSquare, CressieRead
from offline_robust.divergences.kl import KL
from offline_robust.divergences.quantile import Contamination, CVaR, TotalVariation
from offline_robust.divergences.registry import DIVERGENCES, DivergenceConfig, KLConfig, make, parse
from offline_robust.divergences.wasserstein import GradientWasserstein, Wasserstein1

__all__ = [
    "DIVERGENCES",
    "KL",
    "CVaR",
    "ChiSquare",
    "Contamination",
    "CressieRead",
    "Divergence",
    "DivergenceConfig",
    "DualKind",
    "GradientWasserstein",
    "KLConfig",
    "TotalVariation",
    "Wasserstein1",
    "make",
    "parse",
]
