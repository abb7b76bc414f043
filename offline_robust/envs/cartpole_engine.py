"""Gymnasium's CartPole and the continuous one, many episodes at once, equal to them bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from offline_robust.environment import make_env
from offline_robust.envs.cartpole import START
from offline_robust.envs.perturbations import FloatArray, Perturbation
from offline_robust.envs.physics import open_physics, perturb
from offline_robust.envs.systems import System

_PARAMETERS = ("gravity", "force_mag", "length", "pole_mass", "cart_mass", "dt", "start_angle")


class BatchedCartPole:
    """N cart-poles with their own gravity, force, length, masses, time step and spread of starting angles.

    Every observation, reward and end equals that of CartPole-v0, CartPole-v1 or ContinuousCartPole-v0 to the last bit,
    because the arithmetic is theirs, operation by operation, in float64.

    Args:
        system: one of the three, with its keyword arguments.
        episodes: for each cart-pole the perturbations of its physics.
    """

    def __init__(self, system: System, episodes: Sequence[Sequence[Perturbation]]) -> None:
        env = make_env(system.environment)
        self._physics = open_physics(env, system.env_id)
        inner: Any = env.unwrapped
        self._discrete = isinstance(system.action_space, gym.spaces.Discrete)
        self._bounds = np.array([inner.x_threshold, inner.theta_threshold_radians])
        # What a step pays, and what the one that drops the pole pays.
        self._pay = (0.0, -1.0) if getattr(inner, "_sutton_barto_reward", False) else (1.0, 1.0)
        self._limit, self._steps = system.time_limit, 0
        self._episodes = [tuple(own) for own in episodes]
        self._values = np.zeros((len(_PARAMETERS), len(episodes)))
        self.perturb(range(len(episodes)), [[p.level for p in own] for own in self._episodes])
        self._state = np.zeros((len(episodes), 4))
        self.live, self.broken = np.zeros(len(episodes), bool), np.zeros(len(episodes), bool)

    def perturb(self, rows: Sequence[int], levels: Sequence[Sequence[float]]) -> None:
        """See `BatchedEnv.perturb`."""
        for row, own in zip(rows, levels, strict=True):
            self._physics.reset()
            perturb(self._physics, self._episodes[row], own)
            self._values[:, row] = [self._physics.read(name)[0] for name in _PARAMETERS]

    def reset(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Starts every episode where a reset with the same seed does; observations (N, 4)."""
        self._state = np.array([np_random(int(seed))[0].uniform(-START, START, 4) for seed in seeds])
        self._state[:, 2] *= self._values[-1] / START
        self._steps = 0
        self.live[:] = True
        return self._state.astype(np.float32)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Advances every live cart-pole by one step with pushes (N, 1), or 0 and 1 for left and right (N,)."""
        live = self.live.copy()
        # Ended episodes stand still, so that none of them runs out of the range of floats.
        self._state[live] = self._moved(self._push(actions))[live]
        terminated = live & (np.abs(self._state[:, [0, 2]]) > self._bounds).any(1)
        rewards = np.where(live, np.where(terminated, self._pay[1], self._pay[0]), 0.0)
        self._steps += 1
        truncated = live & (self._limit is not None and self._steps >= self._limit)
        self.live &= ~(terminated | truncated)
        return self._state.astype(np.float32), rewards, terminated, truncated

    def close(self) -> None:
        """Nothing to free."""

    def _push(self, actions: NDArray[Any]) -> FloatArray:
        """Forces on the carts (N,), in N."""
        most: FloatArray = self._values[1]
        if self._discrete:
            return np.where(np.asarray(actions) == 1, most, -most)
        share: FloatArray = np.clip(np.asarray(actions, np.float64)[:, 0], -1.0, 1.0)
        return most * share

    def _moved(self, force: FloatArray) -> FloatArray:
        """The states (N, 4) one Euler step later."""
        gravity, _, length, pole, cart, dt, _ = self._values
        x, x_dot, theta, theta_dot = self._state.T
        total, moment = pole + cart, pole * length
        sine, cosine = np.sin(theta), np.cos(theta)
        push = (force + moment * np.square(theta_dot) * sine) / total
        theta_acc = (gravity * sine - cosine * push) / (length * (4.0 / 3.0 - pole * np.square(cosine) / total))
        x_acc = push - moment * theta_acc * cosine / total
        return np.stack([x + dt * x_dot, x_dot + dt * x_acc, theta + dt * theta_dot, theta_dot + dt * theta_acc], 1)
