"""Gymnasium's Pendulum-v1, many episodes at once, equal to it bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random
from numpy.typing import NDArray

from offline_robust.envs.making import make_env
from offline_robust.errors import EvaluationError

_START = np.array([np.pi, 1.0])
"""Half-widths of the uniform start: angle (rad) and angular velocity (rad/s)."""

_PARAMETERS = ("gravity", "mass", "length", "max_torque", "dt")
_ATTRIBUTES = ("g", "m", "l", "max_torque", "dt")


class BatchedPendulum:
    """N pendulums with their own gravity, mass, length, torque limit and time step.

    Every observation, reward and end equals Gymnasium's to the last bit, given float32 actions. Three things make it
    so: products with the action are taken in float32, because there a Python coefficient meets a float32 scalar
    (NumPy 2 keeps the scalar's type); the coefficients are computed from Python floats; and squares in the reward go
    through the scalar power, which rounds differently from ``x * x`` about once in a thousand.

    Args:
        env_id: "Pendulum-v1".
        values: for each pendulum the resolved values of its perturbed parameters.
        env_kwargs: passed to `gymnasium.make`, which provides the nominal values and the time limit.
    """

    def __init__(
        self, env_id: str, values: Sequence[Mapping[str, float]], env_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        env: Any = make_env(env_id, env_kwargs)
        nominal = {name: getattr(env.unwrapped, at) for name, at in zip(_PARAMETERS, _ATTRIBUTES, strict=True)}
        self._max_speed = env.unwrapped.max_speed
        self._limit = env.spec.max_episode_steps if env.spec else None
        env.close()
        for own in values:
            unknown = set(own) - set(_PARAMETERS)
            if unknown:
                raise EvaluationError(f"{env_id}: {sorted(unknown)[0]} cannot be perturbed in this environment")
        table = [{**nominal, **own} for own in values]
        self._dt = np.array([p["dt"] for p in table], np.float64)
        self._max_torque = np.array([p["max_torque"] for p in table], np.float32)
        self._pull = np.array([3 * p["gravity"] / (2 * p["length"]) for p in table], np.float64)
        self._push = np.array([3.0 / (p["mass"] * p["length"] ** 2) for p in table], np.float32)
        self._angle = np.zeros(len(values))
        self._speed = np.zeros(len(values))
        self._steps = 0
        self.live = np.zeros(len(values), bool)

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
        effort = np.float32(0.001) * _square(torque)
        cost = _square(wrapped) + 0.1 * _square(self._speed) + effort
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


def _square(x: NDArray[Any]) -> NDArray[Any]:
    """Element-wise square through the scalar power, as Gymnasium computes it; keeps the dtype."""
    return np.array([value**2 for value in x], x.dtype)
