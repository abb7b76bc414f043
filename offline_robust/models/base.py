"""Nominal models p0(s' | s, a): what every learner that samples next states asks of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from offline_robust.datasets.transitions import Batch, TransitionDataset

Sampler = Callable[[Tensor, Tensor, int, torch.Generator], Tensor]
"""(observations (B, O), actions (B, A), count m, generator) to next observations (B, m, O)."""


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
    """A learned law of the next observation.

    Subclasses are trained by `update`, one minibatch at a time, before and (some) during policy learning.
    """

    deterministic: ClassVar[bool] = False
    """Whether every law is a single point, around which a likelihood-ratio ball holds nothing else."""

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
            (B, m, O), without gradient.
        """
        return self.sampler()(observations, actions, count, generator)

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
