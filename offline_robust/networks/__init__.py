"""Neural networks shared by every learner."""

from offline_robust.networks.actors import Actor, DeterministicActor, GreedyActor, TanhGaussianActor
from offline_robust.networks.candidates import (
    ActionVAE,
    BCQActor,
    CandidateSearch,
    GaussianEncoder,
    PerturbationNetwork,
)
from offline_robust.networks.dual import DualNetwork, LogDualNetwork
from offline_robust.networks.kinds import build_actor, policy_spec
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
from offline_robust.networks.policies import Policy, load_policy, load_tensors
from offline_robust.networks.spec import MAX_LAYERS, MAX_WIDTH, CandidateSpec, PolicySpec

__all__ = [
    "MAX_LAYERS",
    "MAX_WIDTH",
    "MLP",
    "ActionVAE",
    "Actor",
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
    "build_actor",
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
