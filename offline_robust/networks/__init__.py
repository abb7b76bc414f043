"""Neural networks shared by every learner."""

from offline_robust.networks.candidates import (
    ActionVAE,
    BCQActor,
    CandidateSearch,
    GaussianEncoder,
    PerturbationNetwork,
)
from offline_robust.networks.dual import DualNetwork, LogDualNetwork
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
from offline_robust.networks.optimisers import adamw, descend, load_optimiser
from offline_robust.networks.policies import (
    CandidateSpec,
    DeterministicActor,
    GreedyActor,
    Policy,
    PolicySpec,
    TanhGaussianActor,
    load_policy,
    load_tensors,
    policy_spec,
)

__all__ = [
    "MLP",
    "ActionVAE",
    "BCQActor",
    "Buffers",
    "CandidateSearch",
    "CandidateSpec",
    "DeterministicActor",
    "DualNetwork",
    "EnsembleMLP",
    "GaussianEncoder",
    "GreedyActor",
    "InferenceTail",
    "LogDualNetwork",
    "PerturbationNetwork",
    "Policy",
    "PolicySpec",
    "TanhGaussianActor",
    "adamw",
    "descend",
    "fast_inference_dtype",
    "frozen_copy",
    "linear",
    "load_optimiser",
    "load_policy",
    "load_tensors",
    "policy_spec",
    "polyak",
]
