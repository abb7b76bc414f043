"""Batch-constrained Q-learning: the steps that FQI and RFQI share. Each of them says in its `update` how they follow.

Source: RFQI's released code (Panaganti et al. 2022) and the PQL-BCQ it builds on (Liu et al. 2020), after BCQ
(Fujimoto et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from offline_robust.datasets.transitions import Batch
from offline_robust.learners.action_choice import ActionChoice, AllActions, Info, layer_tensors, mixed, step
from offline_robust.learners.base import Learner, LearnerConfig, Part, Problem
from offline_robust.networks import (
    ActionVAE,
    BCQActor,
    Buffers,
    CandidateSearch,
    CandidateSpec,
    EnsembleMLP,
    PerturbationNetwork,
    Policy,
    adamw,
    fast_inference_dtype,
    frozen_copy,
    policy_spec,
    polyak,
)
from offline_robust.networks.candidates import DRAW_BOUND, pieces_of
from offline_robust.networks.dual import require_rows
from offline_robust.networks.spec import MAX_CANDIDATES, MAX_LAYERS, MAX_WIDTH

Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]

# --- Config ---------------------------------------------------------------------------------------------------------


class BCQConfig(LearnerConfig):
    """Twin critics, a VAE of the behaviour's actions, a perturbation of small reach."""

    hidden: tuple[Width, ...] = Field(
        (400, 300),
        min_length=1,
        max_length=MAX_LAYERS,
        description="Hidden widths of critics and perturbation: 16 at most, each of 1 to 8,192. RFQI: 400, 300.",
    )
    vae_hidden: tuple[Width, ...] = Field(
        (750, 750),
        min_length=1,
        max_length=MAX_LAYERS,
        description="Hidden widths of the action VAE (continuous actions). RFQI: 750, 750.",
    )
    candidates: int = Field(
        10, ge=1, le=MAX_CANDIDATES, description="Candidate actions of a next observation. RFQI: 10; its FQI: 100."
    )
    act_candidates: int = Field(
        100, ge=1, le=MAX_CANDIDATES, description="Candidate actions of the policy, from draws it keeps. RFQI: 100."
    )
    reach: float = Field(
        0.1,
        ge=0,
        le=2,
        description="phi: how far the perturbation may move an action, in half-widths of the action range. RFQI: 0.1.",
    )
    pessimism: float = Field(
        0.75, ge=0, le=1, description="lambda: value = lambda min(Q1, Q2) + (1 - lambda) max(Q1, Q2). RFQI: 0.75."
    )
    discount: float = Field(0.99, ge=0, lt=1, description="gamma. RFQI: 0.99.")
    tau: float = Field(0.005, gt=0, le=1, description="Polyak step of the targets. RFQI: 0.005.")
    actor_learning_rate: float = Field(3e-4, gt=0, le=1, description="Adam: perturbation. RFQI: 1e-4 to 1e-3.")
    critic_learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam: critics. RFQI: 6e-4 to 1e-3.")
    vae_learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam: action VAE. RFQI: 1e-3.")
    adam_eps: float = Field(1e-6, gt=0, le=1, description="Adam's epsilon. RFQI: 1e-6; torch's default is 1e-8.")
    v_min: float = Field(
        0.0,
        description="The least value, in shaped rewards: of the unfamiliar (FQI), of the fail state (RFQI). Both: 0.",
    )
    mask_terminals: bool = Field(
        True, description="Nothing follows a true end. RFQI's released code: false, confirmed as an oversight."
    )
    timeouts_as_terminals: bool = Field(
        False, description="Treat time limits as true ends, as the papers' data do. Wrong for time-free tasks."
    )
    policy_averaging: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Polyak step of the networks that are deployed, averages over about 1 / step updates. 1 is the "
        "last iterate, the papers'. Ours.",
    )
    sampling_precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Products of the candidates' path, which carries no gradient; auto: bfloat16 where it is faster.",
    )


# --- Actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backup:
    """How the candidates of a backup are moved before the clip."""

    perturbed: bool = True
    """By the target of the perturbation."""
    noise: float = 0.0
    """Std of Gaussian noise on them, in half-widths of the action range."""


class CandidateActions(ActionChoice):
    """Continuous actions: decoded by a VAE of the behaviour, moved a little, and the best of them under a critic.

    Args:
        config: BCQ's sizes and rates.
        problem: as for every learner.
        backup: how the candidates of a backup are moved.
    """

    deployed: BCQActor

    def __init__(self, config: BCQConfig, problem: Problem, backup: Backup) -> None:
        self.config, self.problem, self.backup = config, problem, backup
        init, device = problem.streams["init"], problem.device
        # The latent is twice as wide as the action (BCQ).
        drawn = CandidateSpec(config.act_candidates, 2 * problem.action_dim, config.vae_hidden, config.reach)
        self.spec = policy_spec(
            "bcq", problem.observation_dim, problem.action_space, config.hidden, problem.environment, drawn
        )
        self.vae = ActionVAE(self.spec, init).to(device)
        self.perturbation = PerturbationNetwork(self.spec, init).to(device)
        self.target_perturbation = frozen_copy(self.perturbation)
        self.vae_optimiser = adamw([(self.vae.parameters(), config.vae_learning_rate)], 0.0)
        self.actor_optimiser = adamw(
            [(self.perturbation.parameters(), config.actor_learning_rate)], 0.0, config.adam_eps
        )
        self.deployed = BCQActor(self.spec, init).to(device)
        self.deployed.draws.copy_(self._draws(config.act_candidates))
        auto = fast_inference_dtype(device)
        self.sampling_dtype = auto if config.sampling_precision == "auto" else getattr(torch, config.sampling_precision)
        self.buffers: Buffers = {}

    def parts(self) -> dict[str, Part]:
        """See `ActionChoice.parts`."""
        return {
            "vae": self.vae,
            "perturbation": self.perturbation,
            "target_perturbation": self.target_perturbation,
            "deployed": self.deployed,
            "vae_optimiser": self.vae_optimiser,
            "actor_optimiser": self.actor_optimiser,
        }

    def deployed_from(self, critics: EnsembleMLP) -> list[Tensor]:
        """See `ActionChoice.deployed_from`."""
        networks = (self.vae.decoder.frozen(), self.perturbation.network.frozen(), critics.member(0))
        return [tensor for layers in networks for tensor in layer_tensors(layers)]

    def fit(self, batch: Batch) -> Info:
        """See `ActionChoice.fit`: one step of the action VAE."""
        loss, info = self.vae.loss(batch.observations, batch.actions, self._normal(len(batch.rewards)))
        step(self.vae_optimiser, loss)
        return info

    def logged(self, critics: EnsembleMLP, batch: Batch) -> Tensor:
        """See `ActionChoice.logged`."""
        return critics(torch.cat([batch.observations, batch.actions], dim=1)).squeeze(2)  # type: ignore[no-any-return]

    @torch.no_grad()
    def best(self, critics: EnsembleMLP, observations: Tensor, pessimism: float) -> Tensor:
        """See `ActionChoice.best`: over candidates, in pieces that stay in the processor's cache."""
        search, count, found = self._search(critics), self.config.candidates, []
        for piece in torch.split(observations, pieces_of(observations, count)):
            actions = search.actions(piece, self._draws(len(piece) * count), self._noise(len(piece) * count))
            found.append(mixed(search.values(piece, actions), pessimism).amax(1))
        return torch.cat(found)

    def improve(self, critics: EnsembleMLP, observations: Tensor) -> Info:
        """See `ActionChoice.improve`: one step of the perturbation."""
        loss = self.actor_loss(critics, observations)
        step(self.actor_optimiser, loss)
        return {"train/actor_loss": loss.detach()}

    def actor_loss(self, critics: EnsembleMLP, observations: Tensor) -> Tensor:
        """-mean Q_1(s, a + phi xi(s, a)) at actions a of the behaviour's VAE."""
        with torch.no_grad():
            actions = self.vae.decode(observations, self._draws(len(observations)))
        x = torch.cat([observations, self.perturbation(observations, actions)], dim=1)
        *hidden, last = critics.member(0)
        for weight, bias in hidden:
            x = F.relu(F.linear(x, weight, bias), inplace=True)
        return -F.linear(x, *last).mean()

    def follow(self, tau: float) -> None:
        """See `ActionChoice.follow`: the target of the perturbation."""
        polyak(self.target_perturbation.parameters(), self.perturbation.parameters(), tau)

    def _search(self, critics: EnsembleMLP) -> CandidateSearch:
        return CandidateSearch(
            self.vae.decoder,
            self.target_perturbation.network if self.backup.perturbed else None,
            [critics.member(0), critics.member(1)],
            self.problem.observation_dim,
            self.config.reach,
            self.vae.centre,
            self.vae.half_range,
            self.sampling_dtype,
            self.buffers,
        )

    def _noise(self, rows: int) -> Tensor | None:
        """Noise on the backup's candidates (rows, A), in half-widths of the action range."""
        if self.backup.noise == 0.0:
            return None
        stream, width = self.problem.streams["policy"], self.problem.action_dim
        return torch.randn((rows, width), generator=stream, device=self.problem.device).mul_(self.backup.noise)

    def _draws(self, rows: int) -> Tensor:
        """(rows, Z) latent draws, clipped."""
        return self._normal(rows).clamp_(-DRAW_BOUND, DRAW_BOUND)

    def _normal(self, rows: int) -> Tensor:
        stream, width = self.problem.streams["policy"], 2 * self.problem.action_dim
        return torch.randn((rows, width), generator=stream, device=self.problem.device)


# --- Learner --------------------------------------------------------------------------------------------------------


class BCQ(Learner):
    """Two critics with targets, a choice of actions, and one method a step.

    Args:
        config: sizes and rates.
        problem: as for every learner.
        backup: how the candidates of a backup are moved, where actions are continuous.
    """

    config: BCQConfig
    actions = frozenset({"box", "discrete"})
    toy = MappingProxyType(
        {
            "hidden": (16, 16),
            "vae_hidden": (16, 16),
            "act_candidates": 10,
            "vae_learning_rate": 3e-3,
            "critic_learning_rate": 3e-3,
            "actor_learning_rate": 3e-3,
            "tau": 0.05,
            "discount": 0.9,
        }
    )

    def __init__(self, config: BCQConfig, problem: Problem, backup: Backup) -> None:
        super().__init__(config, problem)
        o, a, init = problem.observation_dim, problem.action_dim, problem.streams["init"]
        sizes = [o, *config.hidden, a] if problem.discrete else [o + a, *config.hidden, 1]
        self.critics = EnsembleMLP(2, sizes, init).to(problem.device)
        self.target_critics = frozen_copy(self.critics)
        self.critic_optimiser = adamw([(self.critics.parameters(), config.critic_learning_rate)], 0.0, config.adam_eps)
        self.choice: ActionChoice
        if problem.discrete:
            self.choice = AllActions(config.hidden, problem)
        else:
            self.choice = CandidateActions(config, problem, backup)
        self.deployed = self.choice.deployed.requires_grad_(False).to(problem.device)
        self._deployed_from = self.choice.deployed_from(self.critics)
        polyak(self.deployed.parameters(), self._deployed_from, 1.0)
        self.keep(
            critics=self.critics,
            target_critics=self.target_critics,
            critic_optimiser=self.critic_optimiser,
            **self.choice.parts(),
        )

    def policies(self) -> dict[str, Policy]:
        """See `Learner.policies`."""
        return {"policy": Policy(self.choice.spec, self.deployed)}

    # --- The steps of an update -------------------------------------------------------------------------------------

    def next_values(self, observations: Tensor) -> Tensor:
        """V (B,) of observations (B, O): the largest lambda-mix of the target critics over the actions."""
        return self.choice.best(self.target_critics, observations, self.config.pessimism)

    def goes_on(self, batch: Batch) -> Tensor:
        """(B,) bool: rows whose future enters the target."""
        # Without a true next observation there is nothing to bootstrap from, mask or not.
        ended = batch.terminated if self.config.mask_terminals else batch.terminated & ~batch.next_valid
        return ~(ended | batch.truncated if self.config.timeouts_as_terminals else ended)

    def target(self, batch: Batch, future: Tensor, goes_on: Tensor) -> Tensor:
        """y (B,) = r + gamma * future where something follows, r elsewhere; without gradient."""
        rewards = self.config.shaped(batch.rewards)
        require_rows(rewards=rewards, future=future, goes_on=goes_on)
        return (rewards + self.config.discount * torch.where(goes_on, future, 0.0)).detach()

    def fit_critics(self, batch: Batch, target: Tensor) -> Info:
        """One step down sum_i mean (Q_i(s, a) - y)^2."""
        loss, info = self.critic_loss(batch, target)
        step(self.critic_optimiser, loss)
        return info

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Info]:
        """sum_i mean (Q_i(s, a) - y)^2."""
        q = self.choice.logged(self.critics, batch)
        require_rows(q=q[0], target=target)
        loss = (q - target).square().mean(1).sum()
        return loss, {"train/critic_loss": loss.detach(), "train/q": q.detach().mean()}

    def follow(self) -> None:
        """Moves the targets, and the deployed policy."""
        polyak(self.target_critics.parameters(), self.critics.parameters(), self.config.tau)
        self.choice.follow(self.config.tau)
        polyak(self.deployed.parameters(), self._deployed_from, self.config.policy_averaging)


def with_known_futures(batch: Batch) -> Batch:
    """The batch with finite numbers for every next observation: one that does not exist may hold anything, NaN too."""
    known = torch.where(batch.next_valid.unsqueeze(1), batch.next_observations, batch.observations)
    return batch._replace(next_observations=known)
