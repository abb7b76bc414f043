"""Nominal models: learned laws of the next observation."""

from offline_robust.models.base import NominalModel, Sampler, Scales
from offline_robust.models.diagnostics import Diagnosis, diagnose
from offline_robust.models.state_density import StateDensity
from offline_robust.models.vae import TransitionVAE, VAEConfig

MODELS = {"vae": (VAEConfig, TransitionVAE)}
"""Model name to (config class, model class)."""

__all__ = [
    "MODELS",
    "Diagnosis",
    "NominalModel",
    "Sampler",
    "Scales",
    "StateDensity",
    "TransitionVAE",
    "VAEConfig",
    "diagnose",
]
