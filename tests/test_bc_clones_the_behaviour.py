"""Behaviour cloning ends in the conditional mean, the conditional law, or the likeliest action of the log."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy.stats import norm
from toys import line_dataset, problem_of

from offline_robust.learners import BC, BCConfig
from offline_robust.networks import TanhGaussianActor, policy_spec


def trained(data, steps: int = 1500, **fields) -> BC:
    learner = BC(BCConfig(hidden=(32, 32), learning_rate=3e-3, policy_averaging=0.02, **fields), problem_of(data))
    for _ in range(steps):
        learner.update(data.sample(256, learner.problem.streams["sampler"]))
    return learner


def noisy_log(std: float):
    """Actions tanh(-s / 2 + std * noise)."""
    data = line_dataset(episodes=100)
    noise = torch.randn(len(data), 1, generator=torch.Generator().manual_seed(1))
    return replace(data, actions=torch.tanh(-0.5 * data.observations + std * noise))


def test_density_of_given_actions_is_that_of_drawn_ones() -> None:
    space = gym.spaces.Box(-3.0, 5.0, (2,), np.float32)
    actor = TanhGaussianActor(policy_spec("tanh_gaussian", 3, space, [8], None), torch.Generator().manual_seed(0))
    observations = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    actions, log_prob = actor.sample(observations, torch.randn(500, 2, generator=torch.Generator().manual_seed(2)))
    # Recovering u from a float32 action loses digits towards the bounds.
    torch.testing.assert_close(actor.log_prob(observations, actions), log_prob, atol=2e-3, rtol=1e-3)
    at_a_bound = actor.log_prob(observations, torch.full((500, 2), 5.0))
    assert torch.isfinite(at_a_bound).all()


def test_squared_error_ends_in_the_conditional_mean() -> None:
    learner = trained(noisy_log(0.3))
    states = torch.linspace(-1.5, 1.5, 13).unsqueeze(1)
    grid = torch.from_numpy(norm.ppf((np.arange(400) + 0.5) / 400)).float()
    mean = torch.tanh(-0.5 * states + 0.3 * grid).mean(1, keepdim=True)
    assert (learner.policy.act(states) - mean).abs().max() < 0.06


def test_likelihood_ends_in_the_law_of_the_log() -> None:
    learner = trained(noisy_log(0.3), policy="gaussian")
    states = torch.linspace(-1.5, 1.5, 13).unsqueeze(1)
    drawn = learner.policy.act(
        states.repeat(2000, 1), deterministic=False, generator=torch.Generator().manual_seed(0)
    ).clamp(-0.9999, 0.9999)
    u = torch.atanh(drawn).view(2000, 13)
    assert (u.mean(0) + 0.5 * states.squeeze(1)).abs().max() < 0.08
    assert (u.std(0) - 0.3).abs().max() < 0.06


def test_discrete_actions_are_the_likeliest_of_the_log() -> None:
    data = line_dataset(episodes=100)
    likely = (data.observations[:, 0] < 0).long()
    other = torch.rand(len(data), generator=torch.Generator().manual_seed(0)) < 0.3
    learner = trained(replace(data, actions=likely ^ other.long(), action_space=gym.spaces.Discrete(2)))
    states = torch.linspace(-2.0, 2.0, 20).unsqueeze(1)
    assert torch.equal(learner.policy.act(states), (states[:, 0] < 0).long())


@pytest.mark.parametrize("kind", ["deterministic", "gaussian"])
def test_rewards_play_no_part(kind: str) -> None:
    data = line_dataset()
    first, second = (trained(each, steps=5, policy=kind) for each in (data, replace(data, rewards=-data.rewards)))
    assert torch.equal(first.policy.act(data.observations), second.policy.act(data.observations))
