"""Soft actor-critic from a dataset, with an explicit value network: the base that DR-SAC makes robust.

Source: DR-SAC (arXiv 2506.12622) and its released code (branch `submission`), with robust=false.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from offline_robust.datasets.transitions import Batch
from offline_robust.learners.base import Learner, LearnerConfig, Problem
from offline_robust.networks import (
    MLP,
    EnsembleMLP,
    Policy,
    TanhGaussianActor,
    adamw,
    frozen_copy,
    policy_spec,
    polyak,
)
from offline_robust.networks.spec import MAX_LAYERS, MAX_WIDTH

# --- Config ---------------------------------------------------------------------------------------------------------


class SACConfig(LearnerConfig):
    """SAC-v1 style: value network, critic ensemble with target minimum, learned temperature."""

    name: Literal["sac"] = "sac"
    hidden: tuple[Annotated[int, Field(ge=1, le=MAX_WIDTH)], ...] = Field(
        (256, 256),
        min_length=1,
        max_length=MAX_LAYERS,
        description="Hidden widths of every network: 16 at most, each of 1 to 8,192. DR-SAC.",
    )
    critic_hidden: tuple[Annotated[int, Field(ge=1, le=MAX_WIDTH)], ...] | None = Field(
        None,
        min_length=1,
        max_length=MAX_LAYERS,
        description="Hidden widths of the critics where they differ. DR-SAC on HalfCheetah: 3 x 256 beside 4 x 256.",
    )
    critics: int = Field(2, ge=1, le=100, description="N, size of the critic ensemble. DR-SAC: 2 or 5.")
    discount: float = Field(0.99, ge=0, lt=1, description="gamma. DR-SAC: 0.99.")
    tau: float = Field(0.005, gt=0, le=1, description="Polyak step of the targets. DR-SAC: 0.005.")
    actor_learning_rate: float = Field(3e-4, gt=0, le=1, description="AdamW. DR-SAC: 3e-4 or 5e-4.")
    critic_learning_rate: float = Field(3e-4, gt=0, le=1, description="AdamW: critics, value, temperature. DR-SAC.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW. DR-SAC: torch's default, 0.01, on everything.")
    initial_temperature: float = Field(0.12, gt=0, description="alpha at the start. DR-SAC: 0.12.")
    target_entropy: float | None = Field(None, description="Entropy target; None is -A, DR-SAC's.")
    bc_weight: float = Field(0.0, ge=0, le=1, description="Share of behaviour cloning in the actor loss. DR-SAC: 0.")
    policy_averaging: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Polyak step of the actor that is deployed, an average over about 1 / step updates. 1 is the last "
        "iterate, DR-SAC's. Ours.",
    )
    timeouts_as_terminals: bool = Field(
        False, description="Treat time limits as true ends, as the paper's data does. Wrong for time-free tasks."
    )


# --- Learner --------------------------------------------------------------------------------------------------------


class SAC(Learner):
    """Offline SAC. One update regresses V and the critics, improves the actor and the temperature.

    All losses are taken at the networks as they were before the update, as in the released code; they touch
    disjoint parameters, so one backward pass and one optimiser step serve them all.
    """

    Config: ClassVar[type[LearnerConfig]] = SACConfig
    config: SACConfig
    toy = MappingProxyType(
        {"hidden": (16, 16), "critic_learning_rate": 3e-3, "actor_learning_rate": 3e-3, "tau": 0.05, "discount": 0.9}
    )

    def __init__(self, config: SACConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        o, a, init = problem.observation_dim, problem.action_dim, problem.streams["init"]
        self.spec = policy_spec("tanh_gaussian", o, problem.action_space, config.hidden, problem.environment)
        self.actor = TanhGaussianActor(self.spec, init).to(problem.device)
        sizes = [o + a, *(config.critic_hidden or config.hidden), 1]
        self.critics = EnsembleMLP(config.critics, sizes, init).to(problem.device)
        self.value = MLP([o, *config.hidden, 1], init).to(problem.device)
        _edac_start(self.critics, init)
        self.target_critics, self.target_value = frozen_copy(self.critics), frozen_copy(self.value)
        self.log_alpha = nn.Parameter(torch.tensor(config.initial_temperature, device=problem.device).log())
        self.target_entropy = -float(a) if config.target_entropy is None else config.target_entropy
        fast = [*self.critics.parameters(), *self.value.parameters(), self.log_alpha]
        self.optimiser = adamw(
            [(self.actor.parameters(), config.actor_learning_rate), (fast, config.critic_learning_rate)],
            config.weight_decay,
        )
        self.deployed = frozen_copy(self.actor)
        self.keep(
            actor=self.actor,
            deployed=self.deployed,
            critics=self.critics,
            value=self.value,
            target_critics=self.target_critics,
            target_value=self.target_value,
            log_alpha=self.log_alpha,
            optimiser=self.optimiser,
        )

    def policies(self) -> dict[str, Policy]:
        """See `Learner.policies`."""
        return {"policy": Policy(self.spec, self.deployed)}

    # --- Losses -----------------------------------------------------------------------------------------------------

    def value_loss(self, observations: Tensor, soft_value: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """mean (V(s) - [min_i Q'_i(s, a~) - alpha log pi(a~|s)])^2."""
        value = self.value(observations).squeeze(-1)
        loss = F.mse_loss(value, soft_value)
        return loss, {"train/value_loss": loss.detach(), "train/value": value.detach().mean()}

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """sum_i mean (Q_i(s, a) - y)^2: every critic regresses to the same target."""
        q = self.critics(torch.cat([batch.observations, batch.actions], dim=1)).squeeze(-1)
        loss = (q - target).square().mean(1).sum()
        return loss, {"train/critic_loss": loss.detach(), "train/q": q.detach().mean()}

    def actor_loss(
        self, q_min: Tensor, log_prob: Tensor, alpha: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """mean (alpha log pi(a~|s) - min_i Q'_i(s, a~)), blended with behaviour cloning when asked."""
        loss = (alpha * log_prob - q_min).mean()
        info = {"train/actor_loss": loss.detach(), "train/entropy": -log_prob.detach().mean()}
        if self.config.bc_weight > 0.0:
            cloning = F.mse_loss(self.actor(batch.observations), batch.actions)
            loss = torch.lerp(loss, cloning, self.config.bc_weight)
            info["train/bc_loss"] = cloning.detach()
        return loss, info

    def temperature_loss(self, log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """-log alpha * mean(log pi + target entropy)."""
        loss = -self.log_alpha * (log_prob.detach() + self.target_entropy).mean()
        return loss, {"train/alpha": self.log_alpha.detach().exp()}

    def ended(self, batch: Batch) -> Tensor:
        """(B,) bool: rows without a future."""
        return batch.terminated | batch.truncated if self.config.timeouts_as_terminals else batch.terminated

    # --- Update -----------------------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a minibatch; returns 0-d tensors."""
        with torch.no_grad():
            future = self.target_value(batch.next_observations).squeeze(-1)
        return self.improve(batch, future)

    def improve(self, batch: Batch, future: Tensor) -> dict[str, Tensor]:
        """SAC's step on what follows each row.

        Args:
            batch: the rows.
            future: (B,) value of what follows, without gradient; where an episode ends it may hold anything.
        """
        # 1. Actions of the current policy and their soft value under the target critics.
        noise = torch.randn(
            (len(batch.rewards), self.problem.action_dim),
            generator=self.problem.streams["policy"],
            device=self.problem.device,
        )
        actions, log_prob = self.actor.sample(batch.observations, noise)
        q_min = self.target_critics(torch.cat([batch.observations, actions], dim=1)).squeeze(-1).amin(0)
        alpha = self.log_alpha.detach().exp()
        soft_value = (q_min - alpha * log_prob).detach()
        # 2. The target of the critics; ends of episodes have no future: `where`, not a product.
        rewards = self.config.shaped(batch.rewards)
        target = rewards + self.config.discount * torch.where(self.ended(batch), 0.0, future)
        # 3. All losses, one backward pass, one step.
        terms = [
            self.value_loss(batch.observations, soft_value),
            self.critic_loss(batch, target),
            self.actor_loss(q_min, log_prob, alpha, batch),
            self.temperature_loss(log_prob),
        ]
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward([loss for loss, _ in terms])
        self.optimiser.step()
        # 4. Targets follow.
        polyak(self._targets(), self._sources(), self.config.tau)
        polyak(self.deployed.parameters(), self.actor.parameters(), self.config.policy_averaging)
        return {key: value for _, info in terms for key, value in info.items()}

    def _targets(self) -> list[Tensor]:
        return [*self.target_critics.parameters(), *self.target_value.parameters()]

    def _sources(self) -> list[Tensor]:
        return [*self.critics.parameters(), *self.value.parameters()]


def _edac_start(critics: EnsembleMLP, generator: torch.Generator) -> None:
    """EDAC's start, as in DR-SAC's code: hidden biases 0.1, last layer within 3e-3 of zero."""
    with torch.no_grad():
        for bias in critics.biases[:-1]:
            bias.fill_(0.1)
        for last in (critics.weights[-1], critics.biases[-1]):
            last.uniform_(-3e-3, 3e-3, generator=generator)
