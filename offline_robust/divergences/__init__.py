"""Ambiguity sets: balls of laws around a nominal law, and the worst expectation over them."""

from offline_robust.divergences.base import Divergence
from offline_robust.divergences.kl import KL

__all__ = ["KL", "Divergence"]
