"""A simulator that breaks down is told by name, and spoils no other condition."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from offline_robust import evaluate
from offline_robust.envs import Perturbation, make_batch, system
from offline_robust.errors import EvaluationError

PUSH = [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]


def full_throttle(observations: Any) -> Any:
    """Large alternating torques: with a time step ten times too long HalfCheetah's integration breaks down."""
    return np.tile(np.float32(PUSH), (len(observations), 1))


def test_the_condition_in_which_mujoco_broke_down_is_named_and_counted() -> None:
    with pytest.warns(UserWarning, match=r"timestep x10: the simulation broke down in \d of 3 episodes; the physics"):
        results = evaluate(full_throttle, "HalfCheetah-v5", perturb="timestep=1,10", episodes=3, max_steps=100)
    assert list(results.meta["broken"]) == ["timestep x10"]
    assert results.meta["broken"]["timestep x10"] > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = evaluate(full_throttle, "HalfCheetah-v5", perturb="timestep=1", episodes=3, max_steps=100)
    assert alone.meta["broken"] == {}
    nominal = results.frame[results.frame["condition"] == "timestep x1"]["return"]
    np.testing.assert_array_equal(nominal, alone.frame["return"])


class Fragile(gym.Env[Any, Any]):
    """Its observation turns into NaN at the third step, where the hidden mass is negative."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count, self.fragile = 0, bool(self.np_random.integers(2))
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        lost = self.fragile and self.count >= 3
        return np.full(2, np.nan if lost else 1.0, np.float32), 1.0, False, False, {}


def test_observations_that_are_lost_are_a_diverged_simulation_and_no_fault_of_the_policy() -> None:
    gym.register("Fragile-v0", Fragile, max_episode_steps=6)
    seen: list[Any] = []

    def act(observations: Any) -> Any:
        seen.append(observations)
        return np.zeros((len(observations), 1), np.float32)

    try:
        with pytest.raises(EvaluationError, match=r"Fragile-v0, nominal: the simulation diverged") as caught:
            evaluate(act, "Fragile-v0", episodes=8)
    finally:
        gym.registry.pop("Fragile-v0")
    assert "\n" not in str(caught.value)
    assert len(seen) == 6
    assert all(np.isfinite(observations).all() for observations in seen)


def test_nothing_is_broken_after_a_reset() -> None:
    of = system("HalfCheetah-v5")
    batch = make_batch(of, [(of.ready(Perturbation("timestep", 10.0)),)] * 2)
    batch.reset([1, 2])
    assert not batch.broken.any()
    for _ in range(100):
        batch.step(full_throttle(batch.live))
    assert batch.broken.any()
    batch.reset([1, 2])
    assert not batch.broken.any()
    batch.close()
