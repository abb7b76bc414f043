"""Batch-constrained actions: a maximum over candidates near those of the data, moved up the first critic.

Source: BCQ (Fujimoto et al. 2019) as in RFQI's released code (Panaganti et al. 2022) and in PQL-BCQ (Liu et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from offline_robust.datasets.transitions import Batch
from offline_robust.learners.action_search import ActionSearch, Info, mixed, tensors_of
from offline_robust.learners.base import LearnerConfig, Part, Problem
from offline_robust.networks import (
    ActionVAE,
    BCQActor,
    Buffers,
    CandidateSearch,
    CandidateSpec,
    EnsembleMLP,
    PerturbationNetwork,
    adamw,
    descend,
    fast_inference_dtype,
    frozen_copy,
    policy_spec,
    polyak,
)
from offline_robust.networks.candidates import DRAW_BOUND, pieces_of
from offline_robust.networks.spec import MAX_CANDIDATES, MAX_LAYERS, MAX_WIDTH

Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]


# --- Config ---------------------------------------------------------------------------------------------------------


class BatchConstrainedConfig(LearnerConfig):
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


# --- Search ---------------------------------------------------------------------------------------------------------


class BatchConstrainedSearch(ActionSearch):
    """Continuous actions: candidates decoded by a VAE of the behaviour and moved by a perturbation of small reach.

    Args:
        problem: of continuous actions.
        config: widths, rates, numbers of candidates, reach.
        critics: (O + A) to one number; the perturbation climbs the first, and the policy takes its best candidate.
        noise: std of Gaussian noise on the candidates of `best_values`, in half-widths of the action range; None moves
            them by the target of the perturbation instead.
    """

    def __init__(
        self, problem: Problem, config: BatchConstrainedConfig, critics: EnsembleMLP, noise: float | None = None
    ) -> None:
        self.config, self.noise_std = config, noise
        self.stream, self.device, init = problem.streams["policy"], problem.device, problem.streams["init"]
        self.observation_dim, self.action_dim = problem.observation_dim, problem.action_dim
        self.latent_dim = 2 * problem.action_dim  # BCQ's
        drawn = CandidateSpec(config.act_candidates, self.latent_dim, config.vae_hidden, config.reach)
        self.spec = policy_spec(
            "bcq", problem.observation_dim, problem.action_space, config.hidden, problem.environment, drawn
        )
        self.vae = ActionVAE(self.spec, init).to(self.device)
        self.perturbation = PerturbationNetwork(self.spec, init).to(self.device)
        self.target_perturbation = frozen_copy(self.perturbation)
        self.vae_optimiser = adamw([(self.vae.parameters(), config.vae_learning_rate)], 0.0)
        self.actor_optimiser = adamw(
            [(self.perturbation.parameters(), config.actor_learning_rate)], 0.0, config.adam_eps
        )
        actor = BCQActor(self.spec, init).requires_grad_(False).to(self.device)
        actor.draws.copy_(self.draws(config.act_candidates))
        self.deployed = actor
        networks = (self.vae.decoder.frozen(), self.perturbation.network.frozen(), critics.member(0))
        self.sources = [tensor for layers in networks for tensor in tensors_of(layers)]
        auto = fast_inference_dtype(self.device)
        self.dtype = auto if config.sampling_precision == "auto" else getattr(torch, config.sampling_precision)
        self.buffers: Buffers = {}

    def parts(self) -> Mapping[str, Part]:
        """See `ActionSearch.parts`."""
        return {
            "vae": self.vae,
            "perturbation": self.perturbation,
            "target_perturbation": self.target_perturbation,
            "deployed": self.deployed,
            "vae_optimiser": self.vae_optimiser,
            "actor_optimiser": self.actor_optimiser,
        }

    # --- Values -----------------------------------------------------------------------------------------------------

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """See `ActionSearch.pairs`."""
        return torch.cat([batch.observations, batch.actions], dim=1), None

    def logged_values(self, critics: EnsembleMLP, batch: Batch) -> Tensor:
        """See `ActionSearch.logged_values`."""
        return critics(torch.cat([batch.observations, batch.actions], dim=1)).squeeze(2)  # type: ignore[no-any-return]

    @torch.no_grad()
    def best_values(self, critics: EnsembleMLP, observations: Tensor, pessimism: float) -> Tensor:
        """See `ActionSearch.best_values`."""
        search, count, best = self.candidate_search(critics), self.config.candidates, []
        for piece in torch.split(observations, pieces_of(observations, count)):
            rows = len(piece) * count
            actions = search.actions(piece, self.draws(rows), self.noise(rows))
            best.append(mixed(search.values(piece, actions), pessimism).amax(1))
        return torch.cat(best)

    def candidate_search(self, critics: EnsembleMLP) -> CandidateSearch:
        """The behaviour's candidates, moved by the target of the perturbation unless noise does, and two critics."""
        moves = self.target_perturbation.network if self.noise_std is None else None
        return CandidateSearch(
            self.vae.decoder,
            moves,
            [critics.member(0), critics.member(1)],
            self.observation_dim,
            self.config.reach,
            self.vae.centre,
            self.vae.half_range,
            self.dtype,
            self.buffers,
        )

    def draws(self, rows: int) -> Tensor:
        """(rows, Z) latent draws, clipped."""
        drawn = torch.randn((rows, self.latent_dim), generator=self.stream, device=self.device)
        return drawn.clamp_(-DRAW_BOUND, DRAW_BOUND)

    def noise(self, rows: int) -> Tensor | None:
        """(rows, A) Gaussian noise in half-widths of the action range; None where there is none."""
        if not self.noise_std:
            return None
        noise = torch.randn((rows, self.action_dim), generator=self.stream, device=self.device)
        return noise.mul_(self.noise_std)

    # --- Losses -----------------------------------------------------------------------------------------------------

    def perturbation_loss(self, critics: EnsembleMLP, observations: Tensor) -> tuple[Tensor, Info]:
        """-mean Q_1(s, a + phi xi(s, a)) at actions a of the behaviour's VAE."""
        with torch.no_grad():
            actions = self.vae.decode(observations, self.draws(len(observations)))
        x = torch.cat([observations, self.perturbation(observations, actions)], dim=1)
        *hidden, last = critics.member(0)
        for weight, bias in hidden:
            x = F.relu(F.linear(x, weight, bias), inplace=True)
        loss = -F.linear(x, *last).mean()
        return loss, {"train/actor_loss": loss.detach()}

    # --- Update -----------------------------------------------------------------------------------------------------

    def fit(self, batch: Batch) -> Info:
        """See `ActionSearch.fit`: the VAE."""
        noise = torch.randn((len(batch.rewards), self.latent_dim), generator=self.stream, device=self.device)
        loss, info = self.vae.loss(batch.observations, batch.actions, noise)
        descend(self.vae_optimiser, loss)
        return info

    def improve(self, critics: EnsembleMLP, observations: Tensor) -> Info:
        """See `ActionSearch.improve`: the perturbation."""
        loss, info = self.perturbation_loss(critics, observations)
        descend(self.actor_optimiser, loss)
        return info

    def follow(self, tau: float) -> None:
        """See `ActionSearch.follow`: of the perturbation."""
        polyak(self.target_perturbation.parameters(), self.perturbation.parameters(), tau)
