"""The continuous CartPole of DR-SAC: Gymnasium's CartPole pushed by a force of any size up to 30 N."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

START = 0.05
"""Half-width of the uniform start of every coordinate: m, m/s, rad, rad/s."""

_Observation = NDArray[np.float32]


class ContinuousCartPole(gym.Env[_Observation, NDArray[np.float32]]):
    """A pole on a cart; the action in [-1, 1] is the pushing force over `force_mag`.

    Observation: cart position (m) and velocity, pole angle (rad) and velocity. Reward: 1 per step, the falling one
    included. Terminates when the cart leaves 2.4 m or the pole leaves 12 degrees. Semi-explicit details are those of
    DR-SAC's code (arXiv 2506.12622): Euler steps of 0.02 s, gravity 9.8, half length 0.5 m, cart 1 kg, pole 0.1 kg,
    force 30 N. Unlike there, products of the parameters are computed from their current values at every step, so that
    a changed mass or length acts in full.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]  # Gymnasium declares it per object

    def __init__(self) -> None:
        self.gravity, self.masscart, self.masspole, self.length = 9.8, 1.0, 0.1, 0.5
        self.force_mag, self.tau, self.start_angle = 30.0, 0.02, START
        self.x_threshold, self.theta_threshold_radians = 2.4, math.radians(12.0)
        high = np.array([2 * self.x_threshold, np.inf, 2 * self.theta_threshold_radians, np.inf], np.float32)
        self.observation_space = gym.spaces.Box(-high, high)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,))
        self.state = np.zeros(4)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[_Observation, dict[str, Any]]:
        """Starts every coordinate uniformly within 0.05."""
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-START, START, 4)
        self.state[2] *= self.start_angle / START
        return self.state.astype(np.float32), {}

    def step(self, action: NDArray[np.float32]) -> tuple[_Observation, float, bool, bool, dict[str, Any]]:
        """One Euler step; see the class."""
        x, x_dot, theta, theta_dot = self.state
        force = self.force_mag * min(max(float(action[0]), -1.0), 1.0)
        total, moment = self.masscart + self.masspole, self.masspole * self.length
        # NumPy's functions, not those of `math`, whose last bits differ: the batched engine repeats these numbers.
        sine, cosine = np.sin(theta), np.cos(theta)
        push = (force + moment * np.square(theta_dot) * sine) / total
        theta_acc = (self.gravity * sine - cosine * push) / (
            self.length * (4.0 / 3.0 - self.masspole * np.square(cosine) / total)
        )
        x_acc = push - moment * theta_acc * cosine / total
        self.state = np.array(
            [
                x + self.tau * x_dot,
                x_dot + self.tau * x_acc,
                theta + self.tau * theta_dot,
                theta_dot + self.tau * theta_acc,
            ]
        )
        fallen = abs(self.state[0]) > self.x_threshold or abs(self.state[2]) > self.theta_threshold_radians
        return self.state.astype(np.float32), 1.0, bool(fallen), False, {}
