"""Nominal models: learned laws of the next observation."""

from offline_robust.models.base import ModelConfig, NominalModel, Sampler, Scales
from offline_robust.models.diagnostics import Diagnosis, diagnose
from offline_robust.models.state_density import StateDensity
from offline_robust.models.vae import TransitionVAE, VAEConfig
from offline_robust.registry import Registry

MODELS: Registry[NominalModel] = Registry(
    "offline_robust.models",
    NominalModel,  # type: ignore[type-abstract]
    {"vae": TransitionVAE},
)
"""Model name to class."""

__all__ = [
    "MODELS",
    "Diagnosis",
    "ModelConfig",
    "NominalModel",
    "Sampler",
    "Scales",
    "StateDensity",
    "TransitionVAE",
    "VAEConfig",
    "diagnose",
]
