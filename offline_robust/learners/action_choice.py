"""Which actions a value's maximum is over, and what an action is to the critics. Here: all of a finite number.

Learners that hold one do not know whether actions are discrete. `bcq` has the one for continuous actions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from offline_robust.datasets.transitions import Batch
from offline_robust.learners.base import Part, Problem
from offline_robust.networks import (
    EnsembleMLP,
    GreedyActor,
    PolicySpec,
    policy_spec,
)

Info = dict[str, Tensor]


class ActionChoice(ABC):
    """What an action is to the critics, and which actions a maximum is over."""

    spec: PolicySpec
    deployed: nn.Module
    """The network of the policy."""

    @abstractmethod
    def logged(self, critics: EnsembleMLP, batch: Batch) -> Tensor:
        """(2, B) the critics' values of the logged actions."""

    @abstractmethod
    def best(self, critics: EnsembleMLP, observations: Tensor, pessimism: float) -> Tensor:
        """V (B,) of observations (B, O): the largest lambda-mix of the critics, without gradient."""

    @abstractmethod
    def parts(self) -> dict[str, Part]:
        """What checkpoints hold of it."""

    @abstractmethod
    def deployed_from(self, critics: EnsembleMLP) -> list[Tensor]:
        """The tensors that the deployed network follows, in the order of its parameters."""

    def fit(self, batch: Batch) -> Info:
        """One step towards the behaviour in the data, where it is learned."""
        return {}

    def improve(self, critics: EnsembleMLP, observations: Tensor) -> Info:
        """One step up the first critic, where actions are moved."""
        return {}

    def follow(self, tau: float) -> None:  # noqa: B027 - most have none
        """Moves targets of its own."""


def mixed(values: Tensor, pessimism: float) -> Tensor:
    """lambda min + (1 - lambda) max over the first axis, that of the critics."""
    return torch.lerp(values.amax(0), values.amin(0), pessimism)


class AllActions(ActionChoice):
    """Discrete actions: one output of the critics for each, and the policy is greedy in the first critic."""

    def __init__(self, hidden: Sequence[int], problem: Problem) -> None:
        self.spec = policy_spec("greedy", problem.observation_dim, problem.action_space, hidden, problem.environment)
        self.deployed = GreedyActor(self.spec, problem.streams["init"])

    def logged(self, critics: EnsembleMLP, batch: Batch) -> Tensor:
        """See `ActionChoice.logged`."""
        rows = batch.actions.view(1, -1, 1).expand(2, -1, 1)
        return critics(batch.observations).gather(2, rows).squeeze(2)  # type: ignore[no-any-return]

    @torch.no_grad()
    def best(self, critics: EnsembleMLP, observations: Tensor, pessimism: float) -> Tensor:
        """See `ActionChoice.best`."""
        return mixed(critics(observations), pessimism).amax(1)

    def parts(self) -> dict[str, Part]:
        """See `ActionChoice.parts`."""
        return {"deployed": self.deployed}

    def deployed_from(self, critics: EnsembleMLP) -> list[Tensor]:
        """See `ActionChoice.deployed_from`."""
        return layer_tensors(critics.member(0))


def step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of an optimiser down a loss."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def layer_tensors(layers: Any) -> list[Tensor]:
    """Weight, bias, weight, bias: the order of a network's parameters."""
    return [tensor for pair in layers for tensor in pair]
