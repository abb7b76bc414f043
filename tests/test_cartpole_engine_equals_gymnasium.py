"""The batched cart-pole is Gymnasium's CartPole and the continuous one, bit for bit, perturbed or not."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from offline_robust.environment import make_spec, register_environments
from offline_robust.envs import GymnasiumBatch, Perturbation, make_batch, system
from offline_robust.envs.cartpole_engine import BatchedCartPole

EPISODES = 32
IDS = ("CartPole-v1", "CartPole-v0", "ContinuousCartPole-v0")
ATTRIBUTES = {
    "gravity": "gravity", "force_mag": "force_mag", "length": "length", "pole_mass": "masspole",
    "cart_mass": "masscart", "dt": "tau",
}  # fmt: skip
RANGES = {
    "gravity": (-19.6, 28.0), "force_mag": (2.0, 49.0), "length": (0.1, 2.4), "pole_mass": (0.02, 0.5),
    "cart_mass": (0.3, 3.0), "dt": (0.01, 0.03),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date")


def _values(perturbed: bool) -> list[dict[str, float]]:
    rng = np.random.default_rng(3)
    drawn = [{name: float(rng.uniform(*bounds)) for name, bounds in RANGES.items()} for _ in range(EPISODES)]
    for own in drawn[::4]:
        own["force_mag"] = 0.0  # beside a push, the other forces' last bits are lost
    return drawn if perturbed else [{}] * EPISODES


def _gymnasium(env_id: str, values: dict[str, float]) -> gym.Env[Any, Any]:
    register_environments()
    env = gym.make(env_id)
    inner: Any = env.unwrapped
    for name, value in values.items():
        setattr(inner, ATTRIBUTES[name], value)
    inner.total_mass = inner.masspole + inner.masscart
    inner.polemass_length = inner.masspole * inner.length
    return env


def _engine(env_id: str, values: list[dict[str, float]], **env_kwargs: Any) -> Any:
    of = system(make_spec(env_id, env_kwargs))
    return make_batch(of, [[Perturbation(n, v, "absolute") for n, v in own.items()] for own in values])


def _pushes(env_id: str, rng: np.random.Generator, count: int = EPISODES) -> NDArray[Any]:
    if env_id.startswith("Continuous"):
        return rng.uniform(-1.3, 1.3, (count, 1)).astype(np.float32)  # too far on purpose: both clip
    return rng.integers(0, 2, count)


@pytest.mark.parametrize("perturbed", [False, True])
@pytest.mark.parametrize("env_id", IDS)
def test_every_observation_reward_and_end_equals_gymnasium_bit_for_bit(env_id: str, perturbed: bool) -> None:
    values, seeds = _values(perturbed), list(range(100, 100 + EPISODES))
    envs = [_gymnasium(env_id, own) for own in values]
    batch = _engine(env_id, values)
    assert isinstance(batch, BatchedCartPole)
    seen = batch.reset(seeds)
    np.testing.assert_array_equal(seen, [e.reset(seed=s)[0] for e, s in zip(envs, seeds, strict=True)], strict=False)
    rng, live, steps = np.random.default_rng(0), np.ones(EPISODES, bool), 0
    while live.any():
        pushes, before = _pushes(env_id, rng), seen
        seen, rewards, terminated, truncated = batch.step(pushes)
        assert seen.dtype == np.float32
        for row in range(EPISODES):
            if live[row]:
                expected, reward, over, cut, _ = envs[row].step(pushes[row])
                np.testing.assert_array_equal(seen[row], expected, strict=True)
                # The float64 state shows a difference long before the float32 observation does.
                inner: Any = envs[row].unwrapped
                np.testing.assert_array_equal(batch._state[row], inner.state)
                assert (rewards[row], terminated[row], truncated[row]) == (reward, over, cut)
                live[row] = not (over or cut)
            else:
                # An ended episode stands still.
                np.testing.assert_array_equal(seen[row], before[row])
                assert (rewards[row], terminated[row], truncated[row]) == (0.0, False, False)
        np.testing.assert_array_equal(batch.live, live)
        steps += 1
    assert steps > 30


def test_the_time_limit_ends_what_does_not_fall() -> None:
    batch, loop = _engine("CartPole-v1", [{}], max_episode_steps=3), gym.make("CartPole-v1", max_episode_steps=3)
    batch.reset([5])
    loop.reset(seed=5)
    for push in (0, 1, 0):
        ours, theirs = batch.step(np.array([push])), loop.step(push)
    assert (ours[2][0], ours[3][0]) == theirs[2:4] == (False, True)
    assert not batch.live.any()


def test_the_reward_of_sutton_and_barto_is_kept() -> None:
    batch, loop = (
        _engine("CartPole-v1", [{}], sutton_barto_reward=True),
        gym.make("CartPole-v1", sutton_barto_reward=True),
    )
    batch.reset([5])
    loop.reset(seed=5)
    while batch.live.any():
        assert batch.step(np.array([1]))[1][0] == loop.step(1)[1]
    assert not batch.live.any()


@pytest.mark.parametrize("env_id", IDS)
def test_the_generic_loop_agrees_with_moving_physics_and_wider_starts(env_id: str) -> None:
    of = system(env_id)
    stated = [
        [Perturbation("start_angle", 0.2, "absolute"), Perturbation("length", 1.5, "scale")],
        [Perturbation("mass", 2.0, "scale")],
        [],
    ]
    engine, loop = make_batch(of, stated), GymnasiumBatch(of, stated)
    np.testing.assert_array_equal(engine.reset([1, 2, 3]), loop.reset([1, 2, 3]))
    rng = np.random.default_rng(0)
    for step in range(60):
        levels = [[0.2, 1.5 + 0.02 * step], [2.0 + 0.1 * step]]
        for batch in (engine, loop):
            batch.perturb([0, 1], levels)
        pushes = _pushes(env_id, rng, 3)
        for ours, theirs in zip(engine.step(pushes), loop.step(pushes), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert not engine.live.all()
