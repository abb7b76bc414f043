"""The batched pendulum is Gymnasium's Pendulum-v1, bit for bit, perturbed or not."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from offline_robust.environment import make_spec
from offline_robust.envs import BatchedPendulum, GymnasiumBatch, Perturbation, make_batch, system

EPISODES = 24


def _stated(values: list[dict[str, float]]) -> list[list[Perturbation]]:
    return [[Perturbation(name, value, "absolute") for name, value in own.items()] for own in values]


def _values(perturbed: bool) -> list[dict[str, float]]:
    if not perturbed:
        return [{} for _ in range(EPISODES)]
    rng = np.random.default_rng(3)
    ranges = {"length": (0.5, 1.5), "mass": (0.5, 2.0), "gravity": (0.0, 15.0), "max_torque": (0.0, 3.0)}
    return [
        {name: float(rng.uniform(*bounds)) for name, bounds in ranges.items()} | {"dt": 0.03} for _ in range(EPISODES)
    ]


@pytest.mark.parametrize("perturbed", [False, True])
def test_every_observation_reward_and_end_equals_gymnasium_bit_for_bit(perturbed: bool) -> None:
    values, seeds = _values(perturbed), list(range(100, 100 + EPISODES))
    names = {"length": "l", "mass": "m", "gravity": "g", "max_torque": "max_torque", "dt": "dt"}
    envs = []
    for own in values:
        env = gym.make("Pendulum-v1")
        for name, value in own.items():
            setattr(env.unwrapped, names[name], value)
        envs.append(env)
    batch = BatchedPendulum(system("Pendulum-v1"), _stated(values))
    observations = batch.reset(seeds)
    expected = np.array([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    np.testing.assert_array_equal(observations, expected)
    rng = np.random.default_rng(0)
    for step in range(200):
        # Beyond the torque limit on purpose: both clip.
        actions = rng.uniform(-2.5, 2.5, (EPISODES, 1)).astype(np.float32)
        observations, rewards, terminated, truncated = batch.step(actions)
        steps = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        np.testing.assert_array_equal(observations, np.array([s[0] for s in steps]), strict=True)
        np.testing.assert_array_equal(rewards, np.array([s[1] for s in steps], np.float64))
        np.testing.assert_array_equal(terminated, [s[2] for s in steps])
        np.testing.assert_array_equal(truncated, [s[3] for s in steps])
        assert batch.live.all() == (step < 199)


def testsquares_go_through_the_scalar_power() -> None:
    """The reason for a loop in the reward: ``x * x`` differs from Gymnasium's ``x**2`` in the last bit at times."""
    values = np.random.default_rng(0).uniform(-8.0, 8.0, 20_000)
    scalar = np.array([value**2 for value in values])
    from offline_robust.envs.scalar_power import square

    np.testing.assert_array_equal(square(values), scalar)


def test_the_generic_loop_and_the_engine_agree_from_the_same_seeds() -> None:
    of, stated = system("Pendulum-v1"), _stated([{"length": 0.8}, {"gravity": 12.0}, {}])
    engine, loop = make_batch(of, stated), GymnasiumBatch(of, stated)
    assert isinstance(engine, BatchedPendulum)
    np.testing.assert_array_equal(engine.reset([1, 2, 3]), loop.reset([1, 2, 3]))
    for _ in range(201):
        action = np.full((3, 1), 0.7, np.float32)
        for ours, theirs in zip(engine.step(action), loop.step(action), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not engine.live.any()
    assert not loop.live.any()


def test_keyword_arguments_move_the_nominal_value_and_the_time_limit() -> None:
    batch = make_batch(system(make_spec("Pendulum-v1", {"g": 0.0, "max_episode_steps": 3})), [()])
    env = gym.make("Pendulum-v1", g=0.0, max_episode_steps=3)
    batch.reset([5])
    env.reset(seed=5)
    for _ in range(3):
        action = np.zeros((1, 1), np.float32)
        observation, _, _, truncated = batch.step(action)
        expected = env.step(action[0])
        np.testing.assert_array_equal(observation[0], expected[0])
    assert truncated[0]
