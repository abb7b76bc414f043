"""Gymnasium's Pendulum-v1, many episodes at once, equal to it bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from offline_robust.environment import make_env
from offline_robust.envs.perturbations import ParameterSpec, Perturbation, register_parameter
from offline_robust.envs.physics import AttributePhysics, perturb
from offline_robust.envs.scalar_power import square
from offline_robust.envs.systems import System

_START = np.array([np.pi, 1.0])
"""Half-widths of the uniform start: angle (rad) and angular velocity (rad/s)."""

_PARAMETERS = ("gravity", "mass", "length", "max_torque", "dt")


class BatchedPendulum:
    """N pendulums with their own gravity, mass, length, torque limit and time step.

    Every observation, reward and end equals Gymnasium's to the last bit, given float32 actions. Three things make it
    so: products with the action are taken in float32, because there a Python coefficient meets a float32 scalar
    (NumPy 2 keeps the scalar's type); the coefficients are computed from Python floats; and squares in the reward go
    through the scalar power, which rounds differently from ``x * x`` about once in a thousand.

    Args:
        system: Pendulum-v1, with its keyword arguments.
        episodes: for each pendulum the perturbations of its physics.
    """

    def __init__(self, system: System, episodes: Sequence[Sequence[Perturbation]]) -> None:
        env = make_env(system.environment)
        self._physics = AttributePhysics(env, system.env_id)
        inner: Any = env.unwrapped
        self._max_speed, self._limit = inner.max_speed, system.time_limit
        self._episodes = [tuple(own) for own in episodes]
        count = len(episodes)
        self._dt, self._pull = np.zeros(count), np.zeros(count)
        self._max_torque, self._push = np.zeros(count, np.float32), np.zeros(count, np.float32)
        self.perturb(range(count), [[p.level for p in own] for own in self._episodes])
        self._angle = np.zeros(count)
        self._speed = np.zeros(count)
        self._steps = 0
        self.live, self.broken = np.zeros(count, bool), np.zeros(count, bool)

    def perturb(self, rows: Sequence[int], levels: Sequence[Sequence[float]]) -> None:
        """See `BatchedEnv.perturb`."""
        for row, own in zip(rows, levels, strict=True):
            self._physics.reset()
            perturb(self._physics, self._episodes[row], own)
            gravity, mass, length, torque, dt = (float(self._physics.read(name)[0]) for name in _PARAMETERS)
            self._dt[row], self._max_torque[row] = dt, torque
            self._pull[row] = 3 * gravity / (2 * length)
            self._push[row] = 3.0 / (mass * length**2)

    def reset(self, seeds: Sequence[int]) -> NDArray[np.float32]:
        """Starts every episode where Gymnasium's reset with the same seed does; observations (N, 3)."""
        starts = np.array([np_random(int(seed))[0].uniform(low=-_START, high=_START) for seed in seeds])
        self._angle, self._speed = starts[:, 0].copy(), starts[:, 1].copy()
        self._steps = 0
        self.live[:] = True
        return self._observe()

    def step(
        self, actions: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Advances every pendulum by one step with torques (N, 1); none ever terminates."""
        if not self.live.any():
            none = np.zeros(len(self.live), bool)
            return self._observe(), np.zeros(len(self.live)), none, none.copy()
        torque = np.clip(np.asarray(actions, np.float32)[:, 0], -self._max_torque, self._max_torque)
        wrapped = ((self._angle + np.pi) % (2 * np.pi)) - np.pi
        effort = np.float32(0.001) * square(torque)
        cost = square(wrapped) + 0.1 * square(self._speed) + effort
        speed = self._speed + (self._pull * np.sin(self._angle) + self._push * torque) * self._dt
        self._speed = np.clip(speed, -self._max_speed, self._max_speed)
        self._angle = self._angle + self._speed * self._dt
        self._steps += 1
        # All episodes start together, so they reach the time limit together.
        truncated = np.full(len(self.live), self._limit is not None and self._steps >= self._limit)
        self.live &= ~truncated
        return self._observe(), -cost, np.zeros(len(self.live), bool), truncated

    def close(self) -> None:
        """Nothing to free."""

    def _observe(self) -> NDArray[np.float32]:
        return np.stack([np.cos(self._angle), np.sin(self._angle), self._speed], 1).astype(np.float32)


def _register(name: str, unit: str, high: float, attribute: str, meaning: str) -> None:
    # Torque and gravity may vanish; a length, mass or time step may not.
    positive = name in ("length", "mass", "dt")
    register_parameter(
        ParameterSpec(
            name, unit, 0.0, high, "scale", meaning, low_open=positive, env="Pendulum-v1", attributes=(attribute,)
        )
    )


_register("length", "m", 100.0, "l", "length of the rod")
_register("mass", "kg", 1_000.0, "m", "mass of the rod")
_register("gravity", "m/s^2", 1_000.0, "g", "gravitational acceleration")
_register("max_torque", "N m", 1_000.0, "max_torque", "torque at which the motor saturates")
_register("dt", "s", 1.0, "dt", "simulated time per step")
