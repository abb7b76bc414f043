"""Batch-constrained Q-learning: what FQI and RFQI share. They differ in what follows a transition, and only there.

Source: RFQI's released code (Panaganti et al. 2022) and the PQL-BCQ it builds on (Liu et al. 2020), after BCQ
(Fujimoto et al. 2019).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

import gymnasium as gym
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from offline_robust.datasets.transitions import Batch
from offline_robust.learners.base import Learner, LearnerConfig, Problem
from offline_robust.networks import (
    ActionVAE,
    BCQActor,
    Buffers,
    CandidateSearch,
    CandidateSpec,
    EnsembleMLP,
    GreedyActor,
    PerturbationNetwork,
    Policy,
    PolicySpec,
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


# --- Learner --------------------------------------------------------------------------------------------------------


class BCQ(Learner):
    """One update fits the behaviour, regresses the critics and moves the perturbation up the first critic.

    Discrete actions need neither behaviour nor perturbation: the critics give one value an action, V is the largest,
    and the policy is greedy.
    """

    config: BCQConfig
    actions = frozenset({"box", "discrete"})

    def __init__(self, config: BCQConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        self.discrete = isinstance(problem.action_space, gym.spaces.Discrete)
        o, a, init, device = problem.observation_dim, problem.action_dim, problem.streams["init"], problem.device
        sizes = [o, *config.hidden, a] if self.discrete else [o + a, *config.hidden, 1]
        self.critics = EnsembleMLP(2, sizes, init).to(device)
        self.target_critics = frozen_copy(self.critics)
        self.critic_optimiser = adamw([(self.critics.parameters(), config.critic_learning_rate)], 0.0, config.adam_eps)
        self.modules: dict[str, nn.Module] = {"critics": self.critics, "target_critics": self.target_critics}
        self.optimisers = {"critic_optimiser": self.critic_optimiser}
        spec = self._spec()
        if self.discrete:
            self.deployed: GreedyActor | BCQActor = GreedyActor(spec, init)
            self._deployed_from = _tensors(self.critics.member(0))
        else:
            self._build_actions(spec)
        self.modules["deployed"] = self.deployed.requires_grad_(False).to(device)
        polyak(self.deployed.parameters(), self._deployed_from, 1.0)
        self.spec = spec
        self.keep(**self.modules, **self.optimisers)
        auto = fast_inference_dtype(device)
        self.sampling_dtype = auto if config.sampling_precision == "auto" else getattr(torch, config.sampling_precision)
        self.buffers: Buffers = {}

    def _spec(self) -> PolicySpec:
        config, problem = self.config, self.problem
        kind: Literal["greedy", "bcq"] = "greedy" if self.discrete else "bcq"
        # The latent is twice as wide as the action (BCQ).
        drawn = CandidateSpec(config.act_candidates, 2 * problem.action_dim, config.vae_hidden, config.reach)
        return policy_spec(
            kind,
            problem.observation_dim,
            problem.action_space,
            config.hidden,
            problem.environment,
            None if self.discrete else drawn,
        )

    def _build_actions(self, spec: PolicySpec) -> None:
        """What only continuous actions need: the behaviour's VAE, the perturbation and its target, the draws."""
        config, init, device = self.config, self.problem.streams["init"], self.problem.device
        self.vae = ActionVAE(spec, init).to(device)
        self.perturbation = PerturbationNetwork(spec, init).to(device)
        self.target_perturbation = frozen_copy(self.perturbation)
        self.vae_optimiser = adamw([(self.vae.parameters(), config.vae_learning_rate)], 0.0)
        self.actor_optimiser = adamw(
            [(self.perturbation.parameters(), config.actor_learning_rate)], 0.0, config.adam_eps
        )
        self.modules |= {
            "vae": self.vae,
            "perturbation": self.perturbation,
            "target_perturbation": self.target_perturbation,
        }
        self.optimisers |= {"vae_optimiser": self.vae_optimiser, "actor_optimiser": self.actor_optimiser}
        self.deployed = BCQActor(spec, init).to(device)
        self.deployed.draws.copy_(self._draws(config.act_candidates))
        networks = (self.vae.decoder.frozen(), self.perturbation.network.frozen(), self.critics.member(0))
        self._deployed_from = [tensor for layers in networks for tensor in _tensors(layers)]

    def policies(self) -> dict[str, Policy]:
        """See `Learner.policies`."""
        return {"policy": Policy(self.spec, self.deployed)}

    # --- What follows a transition ----------------------------------------------------------------------------------

    @abstractmethod
    def future(self, batch: Batch, values: Tensor, counts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What the target discounts: FQI's and RFQI's one difference.

        Args:
            batch: its next observations hold finite numbers wherever there is no true one.
            values: (B,) V(s').
            counts: (B,) bool: rows whose future enters the target.

        Returns:
            (B,), without gradient; what it holds where `counts` is false does not matter.
        """

    @torch.no_grad()
    def next_values(self, observations: Tensor) -> Tensor:
        """V (B,) of observations (B, O): the largest lambda-mix of the target critics over the candidate actions."""
        if self.discrete:
            return self.mixed(self.target_critics(observations)).amax(1)
        search = self._search()
        count, found = self.config.candidates, []
        for piece in torch.split(observations, pieces_of(observations, count)):
            actions = search.actions(piece, self._draws(len(piece) * count), self._backup_noise(len(piece) * count))
            found.append(self.mixed(search.values(piece, actions)).amax(1))
        return torch.cat(found)

    def mixed(self, values: Tensor) -> Tensor:
        """lambda min + (1 - lambda) max over the first axis, that of the two critics."""
        return torch.lerp(values.amax(0), values.amin(0), self.config.pessimism)

    def _search(self) -> CandidateSearch:
        """The candidates of the backup: the behaviour's, moved by the target of the perturbation."""
        moves = self.target_perturbation.network if self._backup_perturbs() else None
        critics = [self.target_critics.member(0), self.target_critics.member(1)]
        return CandidateSearch(
            self.vae.decoder,
            moves,
            critics,
            self.problem.observation_dim,
            self.config.reach,
            self.vae.centre,
            self.vae.half_range,
            self.sampling_dtype,
            self.buffers,
        )

    def _backup_perturbs(self) -> bool:
        return True

    def _backup_noise(self, rows: int) -> Tensor | None:
        """Noise on the backup's candidates (rows, A), in half-widths of the action range."""
        return None

    def _draws(self, rows: int) -> Tensor:
        """(rows, Z) latent draws, clipped."""
        stream = self.problem.streams["policy"]
        drawn = torch.randn((rows, 2 * self.problem.action_dim), generator=stream, device=self.problem.device)
        return drawn.clamp_(-DRAW_BOUND, DRAW_BOUND)

    # --- Losses -----------------------------------------------------------------------------------------------------

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """sum_i mean (Q_i(s, a) - y)^2."""
        if self.discrete:
            rows = batch.actions.view(1, -1, 1).expand(2, -1, 1)
            q = self.critics(batch.observations).gather(2, rows).squeeze(2)
        else:
            q = self.critics(torch.cat([batch.observations, batch.actions], dim=1)).squeeze(2)
        require_rows(q=q[0], target=target)
        loss = (q - target).square().mean(1).sum()
        return loss, {"train/critic_loss": loss.detach(), "train/q": q.detach().mean()}

    def actor_loss(self, observations: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """-mean Q_1(s, a + phi xi(s, a)) at actions a of the behaviour's VAE."""
        with torch.no_grad():
            actions = self.vae.decode(observations, self._draws(len(observations)))
        x = torch.cat([observations, self.perturbation(observations, actions)], dim=1)
        *hidden, last = self.critics.member(0)
        for weight, bias in hidden:
            x = F.relu(F.linear(x, weight, bias), inplace=True)
        loss = -F.linear(x, *last).mean()
        return loss, {"train/actor_loss": loss.detach()}

    # --- Update -----------------------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on a minibatch; returns 0-d tensors."""
        info: dict[str, Tensor] = {}
        # A next observation that does not exist may hold anything, NaN included.
        known = torch.where(batch.next_valid.unsqueeze(1), batch.next_observations, batch.observations)
        batch = batch._replace(next_observations=known)
        # 1. The behaviour's VAE follows the data.
        if not self.discrete:
            info |= self._step_vae(batch)
        # 2. The target of the critics.
        target, target_info = self.target(batch)
        # 3. The critics regress to it.
        loss, critic_info = self.critic_loss(batch, target)
        _step(self.critic_optimiser, loss)
        # 4. The perturbation climbs the first critic.
        if not self.discrete:
            loss, actor_info = self.actor_loss(batch.observations)
            _step(self.actor_optimiser, loss)
            info |= actor_info
        # 5. Targets and the deployed policy follow.
        polyak(self.target_critics.parameters(), self.critics.parameters(), self.config.tau)
        if not self.discrete:
            polyak(self.target_perturbation.parameters(), self.perturbation.parameters(), self.config.tau)
        polyak(self.deployed.parameters(), self._deployed_from, self.config.policy_averaging)
        return info | target_info | critic_info

    def target(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """y (B,) = r + gamma * future where something follows, r at true ends."""
        values = self.next_values(batch.next_observations)
        # Without a true next observation there is nothing to bootstrap from, mask or not.
        ended = batch.terminated if self.config.mask_terminals else batch.terminated & ~batch.next_valid
        if self.config.timeouts_as_terminals:
            ended = ended | batch.truncated
        future, info = self.future(batch, values, ~ended)
        rewards = self.config.shaped(batch.rewards)
        require_rows(rewards=rewards, values=values, future=future, ended=ended)
        target = rewards + self.config.discount * torch.where(ended, 0.0, future)
        return target.detach(), info | {"train/value": values.mean()}

    def _step_vae(self, batch: Batch) -> dict[str, Tensor]:
        noise = torch.randn(
            (len(batch.rewards), 2 * self.problem.action_dim),
            generator=self.problem.streams["policy"],
            device=self.problem.device,
        )
        loss, info = self.vae.loss(batch.observations, batch.actions, noise)
        _step(self.vae_optimiser, loss)
        return info


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _tensors(layers: Any) -> list[Tensor]:
    """Weight, bias, weight, bias: the order of a network's parameters."""
    return [tensor for pair in layers for tensor in pair]
