"""Over which actions a value is a maximum, and the policy that comes of it; here, all of a finite number.

A learner whose target holds max over a of Q(s', a) holds one of these and does not know which. The other one, for
continuous actions, is `batch_constrained`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from offline_robust.datasets.transitions import Batch
from offline_robust.learners.base import Part, Problem
from offline_robust.networks import EnsembleMLP, GreedyActor, PolicySpec, policy_spec
from offline_robust.networks.mlp import Layers

Info = dict[str, Tensor]


class ActionSearch(ABC):
    """How critics take actions, over which actions their maximum is, and the policy that takes the best one."""

    spec: PolicySpec
    """Describes the policy."""
    deployed: nn.Module
    """The policy's network, without gradient."""
    sources: Sequence[Tensor]
    """What each parameter of `deployed` follows; they share memory with the networks that train."""

    @abstractmethod
    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What a network of (s, a) takes, (B, inputs) of `pair_widths`, and its head for each row, (B,) int64."""

    @abstractmethod
    def logged_values(self, critics: EnsembleMLP, batch: Batch) -> Tensor:
        """Q_i(s, a), (N, B), of the batch's own actions under N critics."""

    @abstractmethod
    def best_values(self, critics: EnsembleMLP, observations: Tensor, pessimism: float) -> Tensor:
        """V (B,) of observations (B, O): the largest `mixed` value under the critics, without gradient."""

    def parts(self) -> Mapping[str, Part]:
        """What checkpoints hold of it, by name."""
        return {"deployed": self.deployed}

    def fit(self, batch: Batch) -> Info:
        """One step of what imitates the behaviour in the data, if anything does."""
        return {}

    def improve(self, critics: EnsembleMLP, observations: Tensor) -> Info:
        """One step of what moves actions up the first critic, if anything does."""
        return {}

    def follow(self, tau: float) -> None:  # noqa: B027 - without networks of its own there are no targets
        """One Polyak step of its own target networks."""


class ExhaustiveSearch(ActionSearch):
    """Discrete actions: critics have one output an action, V is the largest, the policy is greedy in the first critic.

    Args:
        problem: of discrete actions.
        hidden: hidden widths of the critics.
        critics: (O) to one output an action.
    """

    def __init__(self, problem: Problem, hidden: Sequence[int], critics: EnsembleMLP) -> None:
        self.spec = policy_spec("greedy", problem.observation_dim, problem.action_space, hidden, problem.environment)
        self.deployed = GreedyActor(self.spec, problem.streams["init"]).requires_grad_(False).to(problem.device)
        self.sources = tensors_of(critics.member(0))

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """See `ActionSearch.pairs`."""
        return batch.observations, batch.actions

    def logged_values(self, critics: EnsembleMLP, batch: Batch) -> Tensor:
        """See `ActionSearch.logged_values`."""
        values: Tensor = critics(batch.observations)
        return values.gather(2, batch.actions.view(1, -1, 1).expand(len(values), -1, 1)).squeeze(2)

    @torch.no_grad()
    def best_values(self, critics: EnsembleMLP, observations: Tensor, pessimism: float) -> Tensor:
        """See `ActionSearch.best_values`."""
        return mixed(critics(observations), pessimism).amax(1)


def pair_widths(problem: Problem) -> tuple[int, int]:
    """Width of what a network of (s, a) takes, and its number of heads: O + A and 0, or O and one head an action."""
    o, a = problem.observation_dim, problem.action_dim
    return (o, a) if problem.discrete else (o + a, 0)


def mixed(values: Tensor, pessimism: float) -> Tensor:
    """lambda min + (1 - lambda) max over the first axis, that of the critics."""
    return torch.lerp(values.amax(0), values.amin(0), pessimism)


def tensors_of(layers: Layers) -> list[Tensor]:
    """Weight, bias, weight, bias: the order of a network's parameters."""
    return [tensor for pair in layers for tensor in pair]
