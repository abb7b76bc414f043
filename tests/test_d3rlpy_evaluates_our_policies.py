"""Our policies in d3rlpy's evaluators and its fitted Q evaluation, against values known by hand."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from d3rlpy_toys import fitting, make, steps
from toys import line_dataset

from offline_robust.baselines import PolicyAlgorithm, to_replay_buffer
from offline_robust.baselines.names import require_d3rlpy
from offline_robust.baselines.streams import PrivateStream
from offline_robust.datasets import TransitionDataset
from offline_robust.errors import EvaluationError
from offline_robust.networks import Policy, policy_spec

d3rlpy = require_d3rlpy("these tests")
from d3rlpy import metrics, ope, preprocessing  # noqa: E402 - after the import without its notice


def constant_policy(action: float, high: float = 2.0) -> Policy:
    """Gives one action whatever it sees."""
    spec = policy_spec("deterministic", 1, gym.spaces.Box(-high, high, (1,), np.float32), (4,), None)
    policy = Policy(spec)
    with torch.no_grad():
        for parameter in policy.actor.parameters():
            parameter.zero_()
        policy.actor.trunk.linears[-1].bias.fill_(np.arctanh(action / high))
    return policy


def two_steps(episodes: int = 400) -> TransitionDataset:
    """From 0 to 1 and then to the end; only the second action counts, and its reward is itself."""
    rng = np.random.default_rng(0)
    actions = torch.from_numpy(rng.uniform(-2, 2, (2 * episodes, 1)).astype(np.float32))
    second = torch.arange(2 * episodes) % 2 == 1
    return TransitionDataset(
        observations=second[:, None].float(),
        actions=actions,
        rewards=torch.where(second, actions[:, 0], 0.0),
        next_observations=second[:, None].float() + 1,
        terminated=second,
        truncated=torch.zeros(2 * episodes, dtype=torch.bool),
        next_valid=torch.ones(2 * episodes, dtype=torch.bool),
        episode=torch.arange(2 * episodes) // 2,
        observation_space=gym.spaces.Box(-np.inf, np.inf, (1,), np.float32),
        action_space=gym.spaces.Box(-2.0, 2.0, (1,), np.float32),
    )


@pytest.mark.parametrize("scaled", [False, True])
def test_fitted_q_evaluation_finds_the_value_of_a_policy(scaled: bool) -> None:
    """Q(0, a) = gamma * c for the policy that always plays c, whatever a: the data's own actions have mean zero."""
    scalers = {}
    if scaled:
        low, high = np.array([-2.0], np.float32), np.array([2.0], np.float32)
        scalers = {
            "action_scaler": preprocessing.MinMaxActionScaler(low, high),
            "observation_scaler": preprocessing.StandardObservationScaler(np.array([0.5]), np.array([0.5])),
        }
    data, policy = two_steps(), constant_policy(1.5)
    encoder = d3rlpy.models.VectorEncoderFactory([32])
    config = ope.FQEConfig(
        learning_rate=3e-3, gamma=0.8, batch_size=64, target_update_interval=50, encoder_factory=encoder, **scalers
    )
    buffer = to_replay_buffer(data)
    with PrivateStream(0, torch.device("cpu")).active():
        fqe = ope.FQE(PolicyAlgorithm(policy, gamma=0.8, **scalers), config)
        fqe.create_impl((1,), 1)
        rng = np.random.default_rng(1)
        for _ in range(500):
            rows = rng.integers(buffer.transition_count, size=64)
            picked = [buffer.transition_picker(*buffer.buffer[i]) for i in rows]
            fqe.update(d3rlpy.dataset.TransitionMiniBatch.from_transitions(picked))
    value = fqe.predict_value(np.zeros((5, 1), np.float32), np.linspace(-2, 2, 5, dtype=np.float32)[:, None])
    np.testing.assert_allclose(value, 0.8 * 1.5, atol=0.12)  # what 500 updates leave; the data's own policy is worth 0
    initial = metrics.InitialStateValueEstimationEvaluator()(fqe, buffer)
    assert initial == pytest.approx(0.8 * 1.5, abs=0.12)


def test_value_evaluators_see_the_values_they_are_given() -> None:
    """With Q = 2 s + a the squared temporal-difference error is a sum that can be done by hand."""
    data, policy = two_steps(50), constant_policy(0.5)

    def values(x, a):
        return 2 * x[:, 0] + a[:, 0]

    algorithm = PolicyAlgorithm(policy, gamma=0.9, values=values)
    found = metrics.TDErrorEvaluator()(algorithm, to_replay_buffer(data))
    s, a, r = (getattr(data, name).numpy() for name in ("observations", "actions", "rewards"))
    target = r + np.where(data.terminated, 0.0, 0.9 * (2 * 1.0 + 0.5))
    assert found == pytest.approx(np.mean((2 * s[:, 0] + a[:, 0] - target) ** 2), rel=1e-5)
    assert metrics.AverageValueEstimationEvaluator()(algorithm, to_replay_buffer(data)) == pytest.approx(1.5, rel=1e-5)


def test_action_evaluators_compare_with_the_logged_actions() -> None:
    data, policy = line_dataset(), constant_policy(0.5)
    found = metrics.ContinuousActionDiffEvaluator()(PolicyAlgorithm(policy), to_replay_buffer(data))
    assert found == pytest.approx(float((data.actions - 0.5).square().mean()), rel=1e-5)


def test_discrete_policies_match_logged_actions() -> None:
    data = fitting("DQN", line_dataset())
    learner = make("DQN", data)
    steps(learner, 3)
    found = metrics.DiscreteActionMatchEvaluator()(PolicyAlgorithm(learner.policy), to_replay_buffer(data))
    assert found == pytest.approx(float((learner.policy.act(data.observations) == data.actions).float().mean()))


def test_the_environment_evaluator_runs_our_policy() -> None:
    """Pendulum under no torque, from d3rlpy's loop and by hand."""
    spec = policy_spec("deterministic", 3, gym.make("Pendulum-v1").action_space, (4,), None)
    policy = Policy(spec)
    with torch.no_grad():
        for parameter in policy.actor.parameters():
            parameter.zero_()
    env = gym.make("Pendulum-v1")
    env.reset(seed=0)
    found = metrics.EnvironmentEvaluator(env, n_trials=1)(PolicyAlgorithm(policy), None)
    env.reset(seed=0)
    env.reset()
    expected = sum(float(env.step(np.zeros(1, np.float32))[1]) for _ in range(200))
    assert found == pytest.approx(expected)


def test_long_cut_episodes_do_not_break_the_evaluators() -> None:
    """d3rlpy cuts an episode into windows of 1,024 and fails on a last one without transitions."""
    data = line_dataset(episodes=1, length=1_025)
    cut = replace(data, next_valid=torch.arange(1_025) < 1_024)
    found = metrics.ContinuousActionDiffEvaluator()(PolicyAlgorithm(constant_policy(0.0)), to_replay_buffer(cut))
    assert found == pytest.approx(float(data.actions[:-1].square().mean()), rel=1e-5)


def test_a_policy_alone_has_no_values() -> None:
    with pytest.raises(EvaluationError, match="fit d3rlpy's FQE"):
        PolicyAlgorithm(constant_policy(0.0)).predict_value(np.zeros((1, 1)), np.zeros((1, 1)))


def test_draws_are_the_seeds_own() -> None:
    learner = make("SAC", line_dataset())
    x = np.zeros((20, 1), np.float32)
    first, second = (PolicyAlgorithm(learner.policy, seed=seed).sample_action(x) for seed in (0, 0))
    assert (first == second).all()
    assert len(np.unique(first)) > 10
