"""Policies: actor networks with normalisation and action scaling inside, in one safetensors file."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from offline_robust.errors import CheckpointError, EvaluationError, MissingExtra, UserError
from offline_robust.files import write_bytes
from offline_robust.networks.kinds import KINDS, build_actor, decode_spec, tensor_shapes
from offline_robust.networks.spec import PolicySpec, encode_spec, one_line
from offline_robust.tensor_files import open_tensors
from offline_robust.untrusted import parse_json

READERS = {"offline-robust-d3rlpy-policy-1": "offline_robust.baselines.policy_files"}
"""Format of a policy file to the module of ours whose ``read_policy(file, about, where)`` reads it."""

_MAX_JSON = 2**20


class Policy:
    """A trained policy: observations in, actions out, in the environment's own units.

    Args:
        spec: describes the networks.
        actor: the network; a fresh one when None.
    """

    def __init__(self, spec: PolicySpec, actor: nn.Module | None = None) -> None:
        self.spec = spec
        self.actor = actor if actor is not None else build_actor(spec, torch.Generator())

    @property
    def noisy(self) -> bool:
        """Whether it has other actions than its deterministic one."""
        return KINDS[self.spec.kind].noisy

    def in_float64(self, stochastic: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """A copy on the CPU whose actions another processor rounds alike, once they are float32 again.

        Args:
            stochastic: whether it draws, where the policy is noisy.

        Returns:
            (observations (B, O) and standard normal noise (B, A), float64) to actions.
        """
        actor: Any = copy.deepcopy(self.actor).double().cpu()
        return actor.draw if stochastic and self.noisy else lambda observations, noise: actor(observations)

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
        if deterministic or not self.noisy:
            actions = self.actor(x)
        else:
            if generator is None:
                raise EvaluationError("a stochastic action needs a generator: act(..., generator=torch.Generator())")
            noise = torch.randn((*x.shape[:-1], self.spec.action_dim), generator=generator, device=x.device)
            actions = self.actor.draw(x, noise)  # type: ignore[operator] # of a noisy kind
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
    """Reads a policy file of any kind: of ours, or one that acts through another library. Nothing is ever unpickled.

    Raises:
        CheckpointError: the file is missing, is not safetensors, or its tensors do not fit its description.
        MissingExtra: it acts through a library that is not installed.
    """
    where = Path(path)
    if not where.is_file():
        raise CheckpointError(f"{where}: no such policy file")
    try:
        with open_tensors(where) as file:
            about = _description((file.metadata() or {}).get("policy", ""), where)
            if (module := READERS.get(about["format"])) is not None:
                reader: Callable[..., Policy] = importlib.import_module(module).read_policy
                return reader(file, about, where)
            return _read(file, about, where)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{where}: not a safetensors file ({one_line(error)}); pickled policies are never loaded: export it again"
        ) from None
    except (CheckpointError, MissingExtra):
        raise
    except UserError as error:
        raise CheckpointError(f"{where}: the policy's description is damaged ({error})") from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError(f"{where}: damaged ({one_line(error)})") from None


def _description(text: str, where: Path) -> Mapping[str, Any]:
    try:
        about = parse_json(text, _MAX_JSON) if text else {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: the policy's description is damaged ({one_line(error)})") from None
    if not isinstance(about, dict) or not isinstance(about.get("format"), str):
        raise CheckpointError(f"{where}: not a policy file of this library")
    return about


def _read(file: Any, about: Mapping[str, Any], where: Path) -> Policy:
    spec, problem = decode_spec(about)
    if problem:
        raise CheckpointError(f"{where}: the policy's description is damaged ({problem})")
    if spec is None:
        raise CheckpointError(f"{where}: not a policy file of this library")
    # The header says it all: nothing is allocated for a file that does not fit its description.
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    _require_names(found, shapes := tensor_shapes(spec), where)
    for name, shape in shapes.items():
        if (tuple(found[name].get_shape()), found[name].get_dtype()) != (shape, "F32"):
            raise CheckpointError(f"{where}: {name} is not float32 of shape {shape}")
    policy = Policy(spec)
    load_tensors(policy.actor, {name: file.get_tensor(name) for name in shapes}, where)
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


def _require_names(found: Mapping[str, object], expected: Mapping[str, object], where: Path | str) -> None:
    if found.keys() != expected.keys():
        difference = ", ".join(name[:80] for name in sorted(found.keys() ^ expected.keys())[:4])
        raise CheckpointError(f"{where}: tensors do not fit the network: {difference}")
