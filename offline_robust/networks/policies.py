"""Policies: actor networks with normalisation and action scaling inside, in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from offline_robust.errors import CheckpointError, EvaluationError
from offline_robust.files import write_bytes
from offline_robust.networks.actors import DeterministicActor, GreedyActor, TanhGaussianActor
from offline_robust.networks.candidates import BCQActor
from offline_robust.networks.spec import (
    MAX_LAYERS,
    MAX_WIDTH,
    CandidateSpec,
    PolicySpec,
    decode_spec,
    encode_spec,
    one_line,
    policy_spec,
    tensor_shapes,
)
from offline_robust.tensor_files import open_tensors

__all__ = [
    "MAX_LAYERS",
    "MAX_WIDTH",
    "BCQActor",
    "CandidateSpec",
    "DeterministicActor",
    "GreedyActor",
    "Policy",
    "PolicySpec",
    "TanhGaussianActor",
    "build_actor",
    "load_policy",
    "load_tensors",
    "policy_spec",
    "tensor_shapes",
]


class Policy:
    """A trained policy: observations in, actions out, in the environment's own units.

    Args:
        spec: describes the networks.
        actor: the network; a fresh one when None.
    """

    def __init__(self, spec: PolicySpec, actor: nn.Module | None = None) -> None:
        self.spec = spec
        self.actor = actor if actor is not None else build_actor(spec, torch.Generator())

    @overload
    def act(
        self, observations: Tensor, *, deterministic: bool = True, generator: torch.Generator | None = None
    ) -> Tensor: ...
    @overload
    def act(
        self,
        observations: NDArray[np.floating],
        *,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> NDArray[Any]: ...
    @torch.no_grad()
    def act(
        self,
        observations: Tensor | NDArray[np.floating],
        *,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> Tensor | NDArray[Any]:
        """Actions for a batch (B, O) of observations, or for a single one (O,): (B, A) floats or (B,) whole numbers.

        Args:
            observations: a tensor or an array; the answer is of the same sort.
            deterministic: the mean action; otherwise one draw from the policy (a deterministic actor has no other).
            generator: the stream of the draws, needed when ``deterministic`` is false.

        Raises:
            EvaluationError: the width is not the policy's, or a draw is asked for without a generator.
        """
        parameter = next(self.actor.parameters())
        x = torch.as_tensor(observations, dtype=torch.float32, device=parameter.device)
        if x.shape[-1:] != (self.spec.observation_dim,) or x.ndim not in (1, 2):
            raise EvaluationError(
                f"the policy takes observations of width {self.spec.observation_dim}, got shape {tuple(x.shape)}"
            )
        actions: Tensor
        if deterministic or not isinstance(self.actor, TanhGaussianActor):
            actions = self.actor(x)
        else:
            if generator is None:
                raise EvaluationError("a stochastic action needs a generator: act(..., generator=torch.Generator())")
            noise = torch.randn((*x.shape[:-1], self.spec.action_dim), generator=generator, device=x.device)
            actions, _ = self.actor.sample(x, noise)
        if isinstance(observations, Tensor):
            return actions
        array: NDArray[Any] = actions.cpu().numpy()
        return array

    def save(self, path: str | Path) -> None:
        """Writes weights and description into one safetensors file, atomically."""
        # One metadata entry: safetensors writes several in no fixed order, and equal policies give equal files.
        metadata = {"policy": encode_spec(self.spec)}
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.actor.state_dict().items()}
        write_bytes(path, save(tensors, metadata))


def load_policy(path: str | Path) -> Policy:
    """Reads a policy written by `Policy.save`. Nothing is ever unpickled.

    Raises:
        CheckpointError: the file is missing, is not safetensors, or its tensors do not fit its description.
    """
    where = Path(path)
    if not where.is_file():
        raise CheckpointError(f"{where}: no such policy file")
    try:
        with open_tensors(where) as file:
            spec = _read_spec((file.metadata() or {}).get("policy", ""), where)
            # The header says it all: nothing is allocated for a file that does not fit its description.
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            _require_names(found, shapes := tensor_shapes(spec), where)
            for name, shape in shapes.items():
                if (tuple(found[name].get_shape()), found[name].get_dtype()) != (shape, "F32"):
                    raise CheckpointError(f"{where}: {name} is not float32 of shape {shape}")
            tensors = {name: file.get_tensor(name) for name in shapes}
        policy = Policy(spec)
        load_tensors(policy.actor, tensors, where)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{where}: not a safetensors file ({one_line(error)}); pickled policies are never loaded: export it again"
        ) from None
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: damaged ({one_line(error)})") from None
    return policy


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], where: Path | str) -> None:
    """Copies named tensors into a module, checking names, shapes, types and finiteness first.

    Raises:
        CheckpointError: names the first tensor that does not fit.
    """
    own = module.state_dict()
    _require_names(tensors, own, where)
    for name, value in tensors.items():
        if value.shape != own[name].shape or value.dtype != own[name].dtype:
            raise CheckpointError(
                f"{where}: {name} is {value.dtype} of shape {tuple(value.shape)}, "
                f"expected {own[name].dtype} of shape {tuple(own[name].shape)}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{where}: {name} holds NaN or infinite values")
    module.load_state_dict(tensors)


def build_actor(spec: PolicySpec, generator: torch.Generator) -> nn.Module:
    """A freshly initialised actor of the description."""
    return _ACTORS[spec.kind](spec, generator)


_ACTORS: dict[str, type[TanhGaussianActor | DeterministicActor | GreedyActor | BCQActor]] = {
    "tanh_gaussian": TanhGaussianActor,
    "deterministic": DeterministicActor,
    "greedy": GreedyActor,
    "bcq": BCQActor,
}


def _read_spec(text: str, where: Path) -> PolicySpec:
    spec, problem = decode_spec(text)
    if problem:
        raise CheckpointError(f"{where}: the policy's description is damaged ({problem})")
    if spec is None:
        raise CheckpointError(f"{where}: not a policy file of this library")
    return spec


def _require_names(found: Mapping[str, object], expected: Mapping[str, object], where: Path | str) -> None:
    if found.keys() != expected.keys():
        difference = ", ".join(name[:80] for name in sorted(found.keys() ^ expected.keys())[:4])
        raise CheckpointError(f"{where}: tensors do not fit the network: {difference}")
