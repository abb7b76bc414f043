"""d3rlpy's actors as policies of ours.

Where the actor is a ReLU network (d3rlpy's default), its layers are copied into our own policy, with the observation
scaler folded into the first layer and the action scaler into the action range. That policy needs no d3rlpy. Anything
else (BCQ, BEAR, CRR, PLAS, other encoders) acts through d3rlpy (`policy_files`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from offline_robust.baselines.names import DISCRETE
from offline_robust.baselines.policy_files import D3RLPyPolicy
from offline_robust.environment import EnvironmentSpec
from offline_robust.networks import Policy, PolicySpec
from offline_robust.networks.actors import LOG_STD_RANGE
from offline_robust.networks.kinds import KINDS, build_actor
from offline_robust.networks.spec import MAX_LAYERS, MAX_WIDTH

_MEAN = ("TD3PlusBC", "TD3", "DDPG", "ReBRAC", "PRDC", "AWAC", "IQL", "BC")
"""The action is tanh of the network's mean; where the policy has a law around it, that is not our squashed Gaussian."""
_SQUASHED = ("SAC", "CQL", "CalQL")
"""The law is SAC's: tanh of a Gaussian."""
_CLASSES = ("DiscreteBC", "DiscreteSAC")
_VALUES = ("DQN", "DoubleDQN", "NFQ", "DiscreteCQL")


def export_policy(
    algorithm: Any, name: str, resolved: Mapping[str, Any], environment: EnvironmentSpec | None
) -> Policy:
    """A copy of the algorithm's policy.

    Args:
        algorithm: d3rlpy's, with its networks.
        name: d3rlpy's name of it.
        resolved: its configuration, as `resolve` gave it.
        environment: the environment the policy is for.
    """
    return _own(algorithm, name, environment) or D3RLPyPolicy.of(algorithm, name, resolved, environment)


def _own(algorithm: Any, name: str, environment: EnvironmentSpec | None) -> Policy | None:
    """A policy of ours, or None where its networks have another form."""
    modules = algorithm.impl.modules
    heads: dict[str, nn.Linear]
    if name in _MEAN + _SQUASHED:
        actor = modules.imitator if name == "BC" else modules.policy
        heads = {"mean": getattr(actor, "_mu", None) or actor._fc}
        limits = (getattr(actor, "_min_logstd", None), getattr(actor, "_max_logstd", None))
        if name in _SQUASHED and isinstance(actor._logstd, nn.Linear) and limits == LOG_STD_RANGE:
            heads["log_std"] = actor._logstd
    elif name in _CLASSES:
        actor = modules.imitator if name == "DiscreteBC" else modules.policy
        heads = {"mean": actor._fc}
    elif name in _VALUES and len(modules.q_funcs) == 1 and type(modules.q_funcs[0]).__name__ == "DiscreteMeanQFunction":
        actor = modules.q_funcs[0]
        heads = {"mean": actor._fc}
    else:
        return None
    layers = _relu_layers(actor._encoder)
    if layers is None:
        return None
    kind = "greedy" if name in DISCRETE else "tanh_gaussian" if "log_std" in heads else "deterministic"
    spec = PolicySpec(
        kind,
        layers[0].in_features,
        *_range(algorithm, kind, heads["mean"].out_features),
        tuple(layer.out_features for layer in layers),
        environment,
        heads["mean"].out_features if kind == "greedy" else 0,
    )
    return Policy(spec, _filled(spec, layers, heads, algorithm.observation_scaler))


def _relu_layers(encoder: nn.Module) -> list[nn.Linear] | None:
    """The linear layers of an encoder that has a ReLU after each and nothing else."""
    layers = list(getattr(encoder, "_layers", []))
    linears, between = layers[::2], layers[1::2]
    plain = len(layers) % 2 == 0 and all(isinstance(layer, nn.Linear) for layer in linears)
    if not layers or not plain or not all(isinstance(layer, nn.ReLU) for layer in between):
        return None
    fits = len(linears) <= MAX_LAYERS and all(layer.out_features <= MAX_WIDTH for layer in linears)
    return linears if fits else None


def _range(algorithm: Any, kind: str, actions: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if KINDS[kind].discrete:
        return (), ()
    if (scaler := algorithm.action_scaler) is None:
        return (-1.0,) * actions, (1.0,) * actions
    return tuple(float(v) for v in scaler.minimum), tuple(float(v) for v in scaler.maximum)


@torch.no_grad()
def _filled(spec: PolicySpec, layers: list[nn.Linear], heads: Mapping[str, nn.Linear], scaler: Any) -> Any:
    """Our actor of the description with d3rlpy's weights."""
    device = layers[0].weight.device
    actor: Any = build_actor(spec, torch.Generator()).to(device)
    into: list[nn.Linear] = list(actor.trunk.linears)
    if "log_std" in heads:
        into += [actor.mean, actor.log_std]
    for ours, theirs in zip(into, [*layers, *heads.values()], strict=True):
        ours.weight.copy_(theirs.weight)
        ours.bias.copy_(theirs.bias)
    if scaler is not None:
        # W (gain s + offset) + b = (W gain) s + (W offset + b), in float64.
        gain, offset = _affine(scaler, device)
        first = layers[0].weight.double()
        into[0].weight.copy_(first * gain)
        into[0].bias.copy_(layers[0].bias.double() + first @ offset)
    return actor


def _affine(scaler: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """An observation scaler as s -> gain s + offset, (O,) float64 each."""

    def vector(values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64, device=device)

    if scaler.get_type() == "standard":
        gain = 1.0 / (vector(scaler.std) + scaler.eps)
        return gain, -vector(scaler.mean) * gain
    low, high = vector(scaler.minimum), vector(scaler.maximum)
    gain = 2.0 / (high - low)
    return gain, -low * gain - 1.0
