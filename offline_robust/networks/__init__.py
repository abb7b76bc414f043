"""Neural networks shared by every learner."""

from offline_robust.networks.mlp import (
    MLP,
    EnsembleMLP,
    InferenceTail,
    fast_inference_dtype,
    frozen_copy,
    linear,
    polyak,
)
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
    "EnsembleMLP",
    "InferenceTail",
    "Policy",
    "PolicySpec",
    "TanhGaussianActor",
    "fast_inference_dtype",
    "frozen_copy",
    "linear",
    "load_policy",
    "load_tensors",
    "policy_spec",
    "polyak",
]
