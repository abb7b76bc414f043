"""The one dataset type that every reader produces and every learner consumes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from torch import Tensor

from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import DatasetError

TENSORS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminated",
    "truncated",
    "next_valid",
    "episode",
)
"""The arrays of a dataset, in the order in which files and fingerprints hold them."""

NO_EXTRAS: Mapping[str, Tensor] = MappingProxyType({})


class Batch(NamedTuple):
    """A minibatch of B transitions, on the dataset's device."""

    observations: Tensor
    """(B, O) float32."""
    actions: Tensor
    """(B, A) float32, in the environment's scale, or (B,) int64 for discrete actions."""
    rewards: Tensor
    """(B,) float32, as logged."""
    next_observations: Tensor
    """(B, O) float32; meaningful only where `next_valid`."""
    terminated: Tensor
    """(B,) bool: a true end, the value of what follows is zero; it counts also where `truncated` is set too."""
    truncated: Tensor
    """(B,) bool: the episode was cut (time limit, end of file); its value goes on."""
    next_valid: Tensor
    """(B,) bool: `next_observations` is the true next observation."""
    extras: Mapping[str, Tensor] = NO_EXTRAS
    """Further columns by name, (B, ...) each: what a learner asked for (`Learner.columns`)."""


@dataclass(frozen=True)
class TransitionDataset:
    """Logged transitions as contiguous tensors on one device.

    Row i is ``(observations[i], actions[i], rewards[i], next_observations[i])`` with its flags. Rows of one episode
    are consecutive and in time order; ``episode`` numbers them from 0. Where ``next_valid`` is false,
    ``next_observations`` holds a filler without meaning (the readers put the row's own observation there).

    Raises:
        DatasetError: when shapes, types or values contradict each other (the message names the array and the row).
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminated: Tensor
    truncated: Tensor
    next_valid: Tensor
    episode: Tensor
    observation_space: gym.spaces.Box
    action_space: gym.spaces.Box | gym.spaces.Discrete
    environment: EnvironmentSpec | None = None
    """What the data came from, whole; None where nobody said."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Further columns by name, (N, ...) each, that a learner may ask for: a constraint h, a disturbance, ..."""

    def __post_init__(self) -> None:
        rows = len(self.observations)
        if rows == 0:
            raise DatasetError("the dataset has no transitions")
        for name in ("actions", "rewards", "next_observations", "terminated", "truncated", "next_valid", "episode"):
            length = len(getattr(self, name))
            if length != rows:
                raise DatasetError(f"{name} has {length:,} rows where observations has {rows:,}")
        for name in ("rewards", "terminated", "truncated", "next_valid", "episode"):
            if getattr(self, name).ndim != 1:
                raise DatasetError(f"{name} must have shape (N,), not {tuple(getattr(self, name).shape)}")
        if self.observations.ndim != 2 or self.observations.shape != self.next_observations.shape:
            raise DatasetError(
                f"observations and next_observations must both be (N, O), not {tuple(self.observations.shape)} "
                f"and {tuple(self.next_observations.shape)}"
            )
        if self.observation_space.shape != (self.observations.shape[1],):
            raise DatasetError(
                f"observations have width {self.observations.shape[1]} where the observation space has "
                f"shape {self.observation_space.shape}"
            )
        self._check_types()
        self._check_actions()
        for name, values in self.extras.items():
            if len(values) != rows:
                raise DatasetError(f"{name} has {len(values):,} rows where observations has {rows:,}")
            if values.device != self.device:
                raise DatasetError(f"{name} is on {values.device} where observations is on {self.device}")
            self._check_finite(name, values.reshape(rows, -1))
        for name in ("observations", "rewards", "actions"):
            self._check_finite(name, getattr(self, name))
        self._check_finite("next_observations", self.next_observations, self.next_valid)

    def __len__(self) -> int:
        return len(self.observations)

    @property
    def env_id(self) -> str | None:
        """The id of the environment that the data came from."""
        return self.environment.id if self.environment is not None else None

    @property
    def observation_dim(self) -> int:
        """O, the width of an observation."""
        return self.observations.shape[1]

    @property
    def discrete(self) -> bool:
        """Whether actions are int64 indices."""
        return isinstance(self.action_space, gym.spaces.Discrete)

    @property
    def action_dim(self) -> int:
        """A for continuous actions, the number of actions for discrete ones."""
        return int(self.action_space.n) if isinstance(self.action_space, gym.spaces.Discrete) else self.actions.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.observations.device

    @property
    def episodes(self) -> int:
        """The number of episodes."""
        return int(self.episode[-1]) + 1

    @cached_property
    def usable_rows(self) -> Tensor | None:
        """Rows with a one-step target (a true next observation, or a true end); None when that is all of them."""
        usable = self.next_valid | self.terminated
        if not bool(usable.any()):
            raise DatasetError("no row has a next observation or a true end: there is nothing to learn from")
        return None if bool(usable.all()) else usable.nonzero().squeeze(1)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draws rows uniformly with replacement from `usable_rows`.

        Args:
            batch_size: B.
            generator: the sampler's own stream, on the dataset's device.
        """
        usable = self.usable_rows
        count = len(self) if usable is None else len(usable)
        index = torch.randint(count, (batch_size,), generator=generator, device=self.device)
        return self.rows(index if usable is None else usable[index])

    def rows(self, index: Tensor) -> Batch:
        """The rows of an int64 index (B,), as a batch."""
        return Batch(  # index_select takes half the time of an index in brackets
            self.observations.index_select(0, index),
            self.actions.index_select(0, index),
            self.rewards.index_select(0, index),
            self.next_observations.index_select(0, index),
            self.terminated.index_select(0, index),
            self.truncated.index_select(0, index),
            self.next_valid.index_select(0, index),
            {name: values.index_select(0, index) for name, values in self.extras.items()} if self.extras else NO_EXTRAS,
        )

    def select(self, keep: Tensor) -> TransitionDataset:
        """The rows of a bool mask (N,), with episodes numbered anew."""
        tensors = {name: getattr(self, name)[keep] for name in TENSORS}
        tensors["episode"] = torch.unique_consecutive(tensors["episode"], return_inverse=True)[1]
        return replace(self, **tensors, extras={name: values[keep] for name, values in self.extras.items()})

    def to(self, device: str | torch.device) -> TransitionDataset:
        """The same dataset on another device."""
        tensors = {name: getattr(self, name).to(device) for name in TENSORS}
        return replace(self, **tensors, extras={name: values.to(device) for name, values in self.extras.items()})

    def episode_returns(self) -> Tensor:
        """(E,) float64 undiscounted returns, one an episode."""
        returns = torch.zeros(self.episodes, dtype=torch.float64, device=self.device)
        return returns.index_add_(0, self.episode, self.rewards.double())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every array's name, type, shape and bytes: equal exactly when the data are equal.

        Fillers, the next observations where ``next_valid`` is false, are not data and do not count.
        """
        digest = hashlib.sha256()
        columns = {name: getattr(self, name) for name in TENSORS}
        columns |= {f"extras/{name}": self.extras[name] for name in sorted(self.extras)}
        for name, tensor in columns.items():
            if name == "next_observations":
                tensor = tensor.where(self.next_valid[:, None], torch.zeros((), device=self.device))
            if tensor.is_floating_point():
                tensor = tensor + 0.0  # -0.0 equals 0.0 and must not differ in its bytes
            array = tensor.cpu().contiguous().numpy()
            digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def _check_types(self) -> None:
        kinds = dict.fromkeys(("observations", "rewards", "next_observations"), torch.float32)
        kinds |= dict.fromkeys(("terminated", "truncated", "next_valid"), torch.bool)
        for name, kind in kinds.items():
            if getattr(self, name).dtype != kind:
                raise DatasetError(f"{name} must be {kind}, not {getattr(self, name).dtype}")
        if self.episode.is_floating_point() or self.episode.dtype == torch.bool:
            raise DatasetError(f"episode must be whole numbers, not {self.episode.dtype}")
        steps = self.episode.diff()
        if int(self.episode[0]) != 0 or bool(((steps != 0) & (steps != 1)).any()):
            raise DatasetError("episode must number the episodes 0, 1, 2, ... in the order of the rows")

    def _check_actions(self) -> None:
        if isinstance(self.action_space, gym.spaces.Discrete):
            if self.actions.dtype != torch.int64 or self.actions.ndim != 1:
                raise DatasetError(
                    "discrete actions must be int64 of shape (N,), not "
                    f"{self.actions.dtype} {tuple(self.actions.shape)}"
                )
            low, high = int(self.action_space.start), int(self.action_space.start + self.action_space.n) - 1
            outside = (self.actions < low) | (self.actions > high)
            if bool(outside.any()):
                row = int(outside.nonzero()[0])
                raise DatasetError(f"actions: row {row:,} holds {int(self.actions[row])}, outside {low}..{high}")
        elif self.actions.ndim != 2 or self.action_space.shape != (self.actions.shape[1],):
            raise DatasetError(
                f"actions have shape {tuple(self.actions.shape)} where the action space has "
                f"shape {self.action_space.shape}"
            )
        elif self.actions.dtype != torch.float32:
            raise DatasetError(f"continuous actions must be torch.float32, not {self.actions.dtype}")

    @staticmethod
    def _check_finite(name: str, values: Tensor, where: Tensor | None = None) -> None:
        if not values.is_floating_point() or not values.numel():
            return
        if bool(torch.isfinite(torch.stack(values.aminmax())).all()):  # what is asked below takes copies
            return
        bad = ~torch.isfinite(values)
        bad = bad.any(dim=1) if bad.ndim == 2 else bad
        if where is not None:
            bad &= where
        if bool(bad.any()):
            rows = bad.nonzero().squeeze(1)
            raise DatasetError(
                f"{name}: {len(rows):,} rows hold NaN or infinite values (first at row {int(rows[0]):,}); "
                "`offline-robust data check` lists them"
            )
