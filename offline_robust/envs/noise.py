"""Noise on what the policy sees and does, outside the simulation, from one random stream per episode and kind."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from offline_robust.errors import EvaluationError

_BLOCK = 64


class NoiseLayer:
    """Applies ``observation_noise``, ``action_noise`` and ``random_action`` to a batch of episodes.

    The draws depend on the seed, the episode and the kind of noise only: levels scale the same draws, and another
    level, kind or policy changes none of them.

    Args:
        values: resolved noise values by parameter name; absent or 0 means no noise of that kind.
        seed: the evaluation's seed.
        episodes: the episode indices.
        observation_space: a flat Box.
        action_space: a flat Box or Discrete.

    Raises:
        EvaluationError: the noise does not fit the action space.
    """

    def __init__(
        self,
        values: Mapping[str, float],
        seed: int,
        episodes: Sequence[int],
        observation_space: gym.spaces.Box,
        action_space: gym.Space[Any],
    ) -> None:
        self._values = {name: value for name, value in values.items() if value > 0.0}
        self._observation_space, self._space = observation_space, action_space
        discrete = isinstance(action_space, gym.spaces.Discrete)
        if discrete and "action_noise" in self._values:
            raise EvaluationError("action_noise needs continuous actions; with discrete ones use random_action")
        width = 1 if discrete else int(np.prod(action_space.shape or ()))
        if not discrete and "random_action" in self._values:
            low, high = action_space.low, action_space.high  # type: ignore[attr-defined]
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                raise EvaluationError("random_action needs a bounded action space")
        # The first column of random_action is the coin, the others are the action's place in its range.
        widths = {
            "observation_noise": int(np.prod(observation_space.shape)),
            "action_noise": width,
            "random_action": 1 + width,
        }
        self._streams = {
            name: _Stream(seed, episodes, name, widths[name], uniform=name == "random_action") for name in self._values
        }

    def observe(self, observations: NDArray[Any]) -> NDArray[Any]:
        """What the policy sees (N, O) of the true observations (N, O)."""
        if "observation_noise" not in self._values:
            return observations
        noise = self._streams["observation_noise"].next()
        seen = observations + self._values["observation_noise"] * noise
        return seen.astype(observations.dtype)

    def act(self, actions: NDArray[Any]) -> NDArray[Any]:
        """What is executed of the policy's actions: random replacement first, then noise, then the space's bounds."""
        executed = actions
        if "random_action" in self._values:
            draws = self._streams["random_action"].next()
            replace = draws[:, 0] < self._values["random_action"]
            executed = executed.copy()
            executed[replace] = self._uniform(draws[:, 1:])[replace]
        if "action_noise" in self._values:
            assert isinstance(self._space, gym.spaces.Box)
            noisy = executed + self._values["action_noise"] * self._streams["action_noise"].next()
            executed = np.clip(noisy, self._space.low, self._space.high).astype(actions.dtype)
        return executed

    def _uniform(self, unit: NDArray[np.float64]) -> NDArray[Any]:
        if isinstance(self._space, gym.spaces.Discrete):
            return (self._space.start + np.floor(unit[:, 0] * self._space.n)).astype(np.int64)
        assert isinstance(self._space, gym.spaces.Box)
        low, high = self._space.low.astype(np.float64), self._space.high.astype(np.float64)
        return (low + unit * (high - low)).astype(self._space.dtype)


class _Stream:
    """Random numbers (N, width) per step, each row from its episode's own generator, drawn in blocks of steps."""

    def __init__(self, seed: int, episodes: Sequence[int], name: str, width: int, uniform: bool) -> None:
        key = zlib.crc32(name.encode())
        self._generators = [np.random.default_rng([seed, episode, key, 1]) for episode in episodes]
        self._shape, self._uniform = (_BLOCK, width), uniform
        self._block = np.empty((len(episodes), 0, width))
        self._at = 0

    def next(self) -> NDArray[np.float64]:
        if self._at == self._block.shape[1]:
            draws = [
                g.random(self._shape) if self._uniform else g.standard_normal(self._shape) for g in self._generators
            ]
            self._block, self._at = np.stack(draws), 0
        self._at += 1
        step: NDArray[np.float64] = self._block[:, self._at - 1]
        return step
