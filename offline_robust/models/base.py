"""Nominal models p0(s' | s, a): what every learner that samples next states asks of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from offline_robust.datasets.transitions import Batch, TransitionDataset
from offline_robust.networks import MLP, Buffers, InferenceTail

_ROWS_IN_CACHE = 3_200
"""Samples that go through model and V together: 3,200 rows of 256 fit the second-level cache."""

Sampler = Callable[[Tensor, Tensor, int, torch.Generator], Tensor]
"""(observations (B, O), actions (B, A), count m, generator) to next observations (B, m, O)."""


class ModelConfig(BaseModel):
    """What every nominal model's configuration answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str

    @property
    def members(self) -> int:
        """K, the models that a set holds; 1 for a single model."""
        return 1

    @property
    def label(self) -> str:
        """What widens the model, in words; empty where nothing does."""
        return ""


@dataclass(frozen=True)
class Scales:
    """Per-dimension statistics of a dataset that models and diagnostics are expressed in, (O,) float32 where not
    said otherwise."""

    mean: Tensor
    """Mean observation."""
    std: Tensor
    """Standard deviation of observations, floored at 1e-6."""
    step_std: Tensor
    """Standard deviation of the one-step change s' - s over rows with a true next observation."""
    action_std: Tensor
    """(A,) standard deviation of the logged actions; empty for discrete ones."""

    @staticmethod
    def of(dataset: TransitionDataset) -> Scales:
        """Computes them in float64 over the whole dataset."""
        observations = dataset.observations.double()
        valid = dataset.next_valid
        change = dataset.next_observations[valid].double() - observations[valid]
        step = change.std(0, correction=0) if len(change) else torch.zeros_like(observations[0])
        std = observations.std(0, correction=0).clamp_min(1e-6)
        empty = observations.new_zeros(0)
        action_std = empty if dataset.discrete else dataset.actions.double().std(0, correction=0)
        return Scales(observations.mean(0).float(), std.float(), step.float(), action_std.float())


class NominalModel(ABC):
    """A learned law of the next observation, or a set of K of them.

    Subclasses are trained by `update`, one minibatch at a time, before and (some) during policy learning. They are
    built from ``(config, observation_dim, action_dim, scales, generator, device)``.
    """

    Config: ClassVar[type[ModelConfig]]

    deterministic: ClassVar[bool] = False
    """Whether every law is a single point, around which a likelihood-ratio ball holds nothing else."""

    members: int = 1
    """K."""

    @abstractmethod
    def update(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step; returns 0-d tensors under ``model/`` keys."""

    @abstractmethod
    def sampler(self, dtype: torch.dtype = torch.float32) -> Sampler:
        """The model as it is now, prepared for many calls of `sample` (weights converted once).

        Args:
            dtype: of the products between hidden layers; samples are float32 always.
        """

    def sample(self, observations: Tensor, actions: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Draws next observations.

        Args:
            observations: (B, O).
            actions: (B, A).
            count: m, draws for each pair.
            generator: the model's stream.

        Returns:
            (B, m, O), without gradient; of a set, the members take turns.
        """
        return self.sampler()(observations, actions, count, generator)

    def sample_members(self, observations: Tensor, actions: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Draws from every member of a set: (B, K, m, O), without gradient; arguments as of `sample`."""
        if self.members != 1:
            raise NotImplementedError(f"{type(self).__name__} has {self.members} members and draws from none alone")
        return self.sample(observations, actions, count, generator).unsqueeze(1)

    @torch.no_grad()
    def values_of_draws(
        self,
        value: MLP,
        observations: Tensor,
        actions: Tensor,
        count: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """V at draws of the next observation, in pieces that stay in the processor's cache.

        Args:
            value: V, from (., O) to (., 1).
            observations: (B, O).
            actions: (B, A).
            count: m, draws for each pair.
            generator: the model's stream.
            dtype: of the products between hidden layers.

        Returns:
            (B, m) float32, without gradient.
        """
        draw = self.sampler(dtype)
        first, tail = value.linears[0], InferenceTail(value, dtype, self._value_buffers)
        on_cpu = observations.device.type == "cpu"
        pieces = max(1, _ROWS_IN_CACHE // count) if on_cpu else len(observations)
        values = []
        for o, a in zip(torch.split(observations, pieces), torch.split(actions, pieces), strict=True):
            states = draw(o, a, count, generator).flatten(0, 1)
            hidden = torch.addmm(first.bias, states, first.weight.t(), out=tail.workspace(len(states)))
            values.append(tail(hidden).view(len(o), count))
        return torch.cat(values)

    @cached_property
    def _value_buffers(self) -> Buffers:
        return {}

    @abstractmethod
    def mean(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(B, O) the model's central prediction (latent noise at its mean), without gradient."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything needed to continue exactly: weights, optimisers."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` gave."""


def minibatches(dataset: TransitionDataset, rows: Tensor, size: int) -> Iterator[Batch]:
    """The given rows in order, in batches of at most `size`."""
    for start in range(0, len(rows), size):
        yield dataset.rows(rows[start : start + size])
