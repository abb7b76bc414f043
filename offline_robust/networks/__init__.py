"""Neural networks shared by every learner."""

from offline_robust.networks.mlp import (
    MLP,
    Buffers,
    EnsembleMLP,
    InferenceTail,
    fast_inference_dtype,
    frozen_copy,
    linear,
    polyak,
)
from offline_robust.networks.optimisers import adamw, load_optimiser
from offline_robust.networks.policies import (
    Policy,
    PolicySpec,
    TanhGaussianActor,
    load_policy,
    load_tensors,
    policy_spec,
)

__all__ = [
    "MLP",
    "Buffers",
    "EnsembleMLP",
    "InferenceTail",
    "Policy",
    "PolicySpec",
    "TanhGaussianActor",
    "adamw",
    "fast_inference_dtype",
    "frozen_copy",
    "linear",
    "load_optimiser",
    "load_policy",
    "load_tensors",
    "policy_spec",
    "polyak",
]
