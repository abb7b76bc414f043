"""Behaviour cloning: the policy in the data, by supervised learning. The baseline of every offline comparison.

Source: Pomerleau (1991); the squared error of a deterministic policy is that of TD3+BC's cloning term (Fujimoto and Gu
2021) and of d3rlpy's BC; the likelihood of a squashed Gaussian is that of SAC (Haarnoja et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from offline_robust.datasets.transitions import Batch
from offline_robust.learners.base import Learner, LearnerConfig, Problem
from offline_robust.networks import (
    DeterministicActor,
    GreedyActor,
    Policy,
    TanhGaussianActor,
    adamw,
    descend,
    frozen_copy,
    policy_spec,
    polyak,
)
from offline_robust.networks.spec import MAX_LAYERS, MAX_WIDTH

# --- Config ---------------------------------------------------------------------------------------------------------


class BCConfig(LearnerConfig):
    """What is cloned, and how fast. Rewards play no part."""

    name: Literal["bc"] = "bc"
    policy: Literal["deterministic", "gaussian"] = Field(
        "deterministic",
        description="Of continuous actions: deterministic, by squared error (d3rlpy's default); gaussian, a squashed "
        "normal law, by likelihood. Discrete actions: by likelihood, acted on greedily.",
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=MAX_WIDTH)], ...] = Field(
        (256, 256),
        min_length=1,
        max_length=MAX_LAYERS,
        description="Hidden widths: 16 at most, each of 1 to 8,192. d3rlpy's BC: 256, 256.",
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="AdamW. d3rlpy's BC: 1e-3.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW. d3rlpy's BC: none.")
    policy_averaging: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Polyak step of the policy that is deployed, an average over about 1 / step updates. 1 is the last "
        "iterate. Ours.",
    )


# --- Losses ---------------------------------------------------------------------------------------------------------


def squared_error(actor: DeterministicActor, batch: Batch) -> Tensor:
    """mean (pi(s) - a)^2, in half-widths of the action range."""
    return F.mse_loss(actor(batch.observations) / actor.half_range, batch.actions / actor.half_range)


def minus_log_likelihood(actor: TanhGaussianActor, batch: Batch) -> Tensor:
    """- mean log pi(a | s)."""
    return -actor.log_prob(batch.observations, batch.actions).mean()


def cross_entropy(actor: GreedyActor, batch: Batch) -> Tensor:
    """- mean log pi(a | s), pi the softmax of the outputs."""
    return F.cross_entropy(actor.trunk(batch.observations), batch.actions)


# --- Learner --------------------------------------------------------------------------------------------------------


class BC(Learner):
    """One network, one supervised loss: squared error, or minus the log likelihood of the logged action."""

    Config = BCConfig
    config: BCConfig
    actions = frozenset({"box", "discrete"})
    imitates = True
    toy = MappingProxyType({"hidden": (16, 16), "learning_rate": 3e-3})

    def __init__(self, config: BCConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        kind: Literal["deterministic", "tanh_gaussian", "greedy"]
        kind = "greedy" if problem.discrete else "tanh_gaussian" if config.policy == "gaussian" else "deterministic"
        self.spec = policy_spec(kind, problem.observation_dim, problem.action_space, config.hidden, problem.environment)
        build, self.loss = CLONES[kind]
        self.actor = build(self.spec, problem.streams["init"]).to(problem.device)
        self.deployed = frozen_copy(self.actor)
        self.optimiser = adamw([(self.actor.parameters(), config.learning_rate)], config.weight_decay)
        self.keep(actor=self.actor, deployed=self.deployed, optimiser=self.optimiser)

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a minibatch; returns 0-d tensors."""
        loss = self.loss(self.actor, batch)
        descend(self.optimiser, loss)
        polyak(self.deployed.parameters(), self.actor.parameters(), self.config.policy_averaging)
        return {"train/bc_loss": loss.detach()}

    def policies(self) -> dict[str, Policy]:
        """See `Learner.policies`."""
        return {"policy": Policy(self.spec, self.deployed)}


CLONES: dict[str, tuple[Callable[..., nn.Module], Callable[..., Tensor]]] = {
    "deterministic": (DeterministicActor, squared_error),
    "tanh_gaussian": (TanhGaussianActor, minus_log_likelihood),
    "greedy": (GreedyActor, cross_entropy),
}
"""Kind of policy to its network and its loss."""
