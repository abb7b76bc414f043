"""Policies that act through d3rlpy, in a safetensors file: weights, and the configuration to rebuild the networks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from offline_robust.baselines.algorithms import make_algorithm
from offline_robust.baselines.fields import plain, resolve, weights_of
from offline_robust.baselines.modules import networks_of
from offline_robust.baselines.names import CONTINUOUS, DISCRETE
from offline_robust.baselines.streams import PrivateStream
from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import EvaluationError
from offline_robust.files import write_bytes
from offline_robust.networks import Policy, PolicySpec
from offline_robust.networks.policies import load_tensors
from offline_robust.networks.spec import decode_environment

_FORMAT = "offline-robust-d3rlpy-policy-1"
_MAX_DIM = 65_536
_ABOUT = ("name", "config", "sizes", "environment", "env_id")
_SCALERS = ("observation_scaler", "action_scaler", "reward_scaler")


class D3RLPyPolicy(Policy):
    """A policy that asks d3rlpy's networks, in d3rlpy's way.

    Some of these draw candidate actions and take the best by their critic. The draws start anew at every call, so that
    the answer depends on nothing but the observations.

    Args:
        algorithm: d3rlpy's, with its networks.
        about: ``name``, ``config`` (with fitted scalers), ``sizes`` and, where known, ``environment`` (or ``env_id``
            alone, as older files have it).
    """

    def __init__(self, algorithm: Any, about: Mapping[str, Any]) -> None:
        observation_dim, actions = about["sizes"]
        discrete = about["name"] in DISCRETE
        scaler = algorithm.action_scaler
        low = [-1.0] * actions if scaler is None else [float(v) for v in scaler.minimum]
        high = [1.0] * actions if scaler is None else [float(v) for v in scaler.maximum]
        spec = PolicySpec(
            "greedy" if discrete else "deterministic",
            observation_dim,
            () if discrete else tuple(low),
            () if discrete else tuple(high),
            (),  # what is hidden is the configuration's matter
            decode_environment(about),
            actions if discrete else 0,
        )
        super().__init__(spec, nn.ModuleDict(networks_of(algorithm.impl)))
        self.algorithm, self._about = algorithm, dict(about)

    @classmethod
    def of(
        cls, algorithm: Any, name: str, resolved: Mapping[str, Any], environment: EnvironmentSpec | None
    ) -> D3RLPyPolicy:
        """The policy of an algorithm; it shares the networks."""
        config = dict(resolved) | {key: plain(getattr(algorithm, key)) for key in _SCALERS}
        sizes = [int(algorithm.impl.observation_shape[0]), int(algorithm.impl.action_size)]
        about: dict[str, Any] = {"name": name, "config": config, "sizes": sizes}
        about["environment"] = None if environment is None else environment.to_dict()
        return cls(algorithm, about)

    def in_float64(self, stochastic: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """See `Policy.in_float64`: in d3rlpy's own float32; a draw is seeded by the noise."""

        def act(observations: Tensor, noise: Tensor) -> Tensor:
            if not stochastic:
                return torch.as_tensor(self.act(observations))
            seed = int.from_bytes(noise.numpy().tobytes()[:7], "little")
            return torch.as_tensor(self.act(observations, deterministic=False, generator=_seeded(seed)))

        return act

    @property
    def identity(self) -> str:
        """What tells it apart from other policies, beside its weights."""
        return json.dumps(self._about, sort_keys=True)

    def act(self, observations: Any, *, deterministic: bool = True, generator: torch.Generator | None = None) -> Any:
        """As `Policy.act`; with ``deterministic=False`` what d3rlpy's `sample_action` gives."""
        if not deterministic and generator is None:
            raise EvaluationError("a stochastic action needs a generator: act(..., generator=torch.Generator())")
        device = next(self.actor.parameters()).device
        x = torch.as_tensor(observations, dtype=torch.float32)
        if x.shape[-1:] != (self.spec.observation_dim,) or x.ndim not in (1, 2):
            raise EvaluationError(
                f"the policy takes observations of width {self.spec.observation_dim}, got shape {tuple(x.shape)}"
            )
        seed = 0 if deterministic else int(torch.randint(2**62, (1,), generator=generator))
        ask = self.algorithm.predict if deterministic else self.algorithm.sample_action
        with PrivateStream(seed, device).active():
            actions = ask(np.atleast_2d(x.cpu().numpy()))
        actions = actions if x.ndim == 2 else actions[0]
        return torch.as_tensor(actions, device=device) if isinstance(observations, Tensor) else actions

    def save(self, path: str | Path) -> None:
        """Writes weights and configuration into one safetensors file, atomically; `read_policy` reads it."""
        metadata = {"policy": json.dumps({"format": _FORMAT, **self._about}, sort_keys=True)}
        tensors = {name: value.detach().cpu().clone().contiguous() for name, value in self.actor.state_dict().items()}
        write_bytes(path, save(tensors, metadata))


def read_policy(file: Any, about: Mapping[str, Any], where: Path) -> D3RLPyPolicy:
    """Reads what `D3RLPyPolicy.save` wrote, for `networks.load_policy`.

    Args:
        file: open safetensors.
        about: its description, of this format, otherwise not trusted.
        where: for messages.

    Raises:
        CheckpointError: its tensors do not fit its description.
        MissingExtra: d3rlpy is not installed.
        ValueError: it is no description of an algorithm.
    """
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    _check(about, sum(math.prod(each.get_shape()) for each in found.values()))
    policy = D3RLPyPolicy(_rebuilt(about), {key: about[key] for key in _ABOUT if key in about})
    load_tensors(policy.actor, {name: file.get_tensor(name) for name in found}, where)
    return policy


def _check(about: Mapping[str, Any], stored: int) -> None:
    """Refuses descriptions of networks larger than what the file holds, before any is made.

    Raises:
        ValueError: it is not a description, or of another size.
    """
    name, sizes = about["name"], about["sizes"]
    if name not in CONTINUOUS + DISCRETE or not isinstance(about["config"], dict):
        raise ValueError("it names no algorithm of d3rlpy")
    if not isinstance(sizes, list) or len(sizes) != 2 or not all(type(n) is int and 1 <= n <= _MAX_DIM for n in sizes):
        raise ValueError(f"sizes are not two whole numbers from 1 to {_MAX_DIM:,}")
    if (needed := weights_of(resolve(name, about["config"])[0])) > stored:
        raise ValueError(f"it describes {needed:,} weights where the file holds {stored:,}")


def _rebuilt(about: Mapping[str, Any]) -> Any:
    resolved, _ = resolve(about["name"], about["config"])
    cpu = torch.device("cpu")
    algorithm = make_algorithm(about["name"], resolved, tuple(about["sizes"]), None, cpu, PrivateStream(0, cpu))
    for key, width in (("observation_scaler", about["sizes"][0]), ("action_scaler", about["sizes"][1])):
        scaler = getattr(algorithm, key)
        if scaler is not None and (not scaler.built or any(np.shape(v) != (width,) for v in _arrays(scaler))):
            raise ValueError(f"{key} is not fitted to width {width}")
    return algorithm


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _arrays(scaler: Any) -> list[Any]:
    return [value for value in vars(scaler).values() if isinstance(value, np.ndarray)]
