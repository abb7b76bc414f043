"""What fitted Q iterations on a batch share: twin critics, the search for the best action, the target's ends.

An algorithm says in its own `update` what follows a transition.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from offline_robust.datasets.transitions import Batch
from offline_robust.learners.action_search import ActionSearch, ExhaustiveSearch, Info, pair_widths
from offline_robust.learners.base import Learner, Problem
from offline_robust.learners.batch_constrained import BatchConstrainedConfig, BatchConstrainedSearch
from offline_robust.networks import EnsembleMLP, Policy, adamw, descend, frozen_copy, polyak
from offline_robust.networks.dual import require_rows


class FittedQ(Learner):
    """Twin critics with targets, the values of next observations under these, regression, and the policy.

    Args:
        config: frozen.
        problem: see `Learner`.
        noise: of `BatchConstrainedSearch`; discrete actions have none.
    """

    config: BatchConstrainedConfig
    actions = frozenset({"box", "discrete"})
    toy = MappingProxyType(
        {
            "hidden": (16, 16),
            "vae_hidden": (16, 16),
            "act_candidates": 10,
            "actor_learning_rate": 3e-3,
            "critic_learning_rate": 3e-3,
            "vae_learning_rate": 3e-3,
            "tau": 0.05,
            "discount": 0.9,
        }
    )

    def __init__(self, config: BatchConstrainedConfig, problem: Problem, noise: float | None = None) -> None:
        super().__init__(config, problem)
        inputs, heads = pair_widths(problem)
        self.critics = EnsembleMLP(2, [inputs, *config.hidden, max(1, heads)], problem.streams["init"])
        self.critics.to(problem.device)
        self.target_critics = frozen_copy(self.critics)
        self.critic_optimiser = adamw([(self.critics.parameters(), config.critic_learning_rate)], 0.0, config.adam_eps)
        self.search: ActionSearch
        if problem.discrete:
            self.search = ExhaustiveSearch(problem, config.hidden, self.critics)
        else:
            self.search = BatchConstrainedSearch(problem, config, self.critics, noise)
        polyak(self.search.deployed.parameters(), self.search.sources, 1.0)
        self.keep(
            critics=self.critics,
            target_critics=self.target_critics,
            critic_optimiser=self.critic_optimiser,
            **self.search.parts(),
        )

    def policies(self) -> dict[str, Policy]:
        """See `Learner.policies`."""
        return {"policy": Policy(self.search.spec, self.search.deployed)}

    # --- Target -----------------------------------------------------------------------------------------------------

    def following(self, batch: Batch) -> Tensor:
        """(B, O) next observations; where there is no true one, which may hold anything, the row's own."""
        return torch.where(batch.next_valid.unsqueeze(1), batch.next_observations, batch.observations)

    def next_values(self, observations: Tensor) -> Tensor:
        """V (B,) of observations (B, O): the largest lambda-mix of the target critics, without gradient."""
        return self.search.best_values(self.target_critics, observations, self.config.pessimism)

    def ended(self, batch: Batch) -> Tensor:
        """(B,) bool: rows whose future does not enter the target."""
        # Without a true next observation there is nothing to bootstrap from, mask or not.
        ended = batch.terminated if self.config.mask_terminals else batch.terminated & ~batch.next_valid
        return ended | batch.truncated if self.config.timeouts_as_terminals else ended

    def target(self, batch: Batch, future: Tensor) -> Tensor:
        """y (B,) = r + gamma * future where something follows, r where the row has ended.

        Args:
            batch: the rows.
            future: (B,); what it holds at ends does not matter.
        """
        rewards, ended = self.config.shaped(batch.rewards), self.ended(batch)
        require_rows(rewards=rewards, future=future, ended=ended)
        return (rewards + self.config.discount * torch.where(ended, 0.0, future)).detach()

    # --- Losses -----------------------------------------------------------------------------------------------------

    def critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Info]:
        """sum_i mean (Q_i(s, a) - y)^2."""
        q = self.search.logged_values(self.critics, batch)
        require_rows(q=q[0], target=target)
        loss = (q - target).square().mean(1).sum()
        return loss, {"train/critic_loss": loss.detach(), "train/q": q.detach().mean()}

    # --- Steps ------------------------------------------------------------------------------------------------------

    def regress(self, batch: Batch, target: Tensor) -> Info:
        """One step of the critics towards a target (B,)."""
        loss, info = self.critic_loss(batch, target)
        descend(self.critic_optimiser, loss)
        return info

    def follow(self) -> None:
        """One Polyak step of all targets and of the deployed policy."""
        polyak(self.target_critics.parameters(), self.critics.parameters(), self.config.tau)
        self.search.follow(self.config.tau)
        polyak(self.search.deployed.parameters(), self.search.sources, self.config.policy_averaging)
