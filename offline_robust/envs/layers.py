"""Gymnasium's wrappers around a batched engine: the same figures for many episodes at once.

What a wrapper computes is computed by the wrapper's own function, on all rows; what it remembers is kept for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from numpy.typing import NDArray

from offline_robust.environment import EnvironmentSpec, make_env
from offline_robust.environment.wrappers import Env, ignorable, maker, wrap

_LAYERED = (
    wrappers.TimeLimit,
    wrappers.RescaleAction,
    wrappers.ClipAction,
    wrappers.FlattenObservation,
    wrappers.FrameStackObservation,
    wrappers.DtypeObservation,
    wrappers.RescaleObservation,
    wrappers.ClipReward,
)


def layered(spec: EnvironmentSpec) -> bool:
    """Whether every wrapper of an environment is among those that are repeated here.

    Raises:
        EvaluationError: one of them cannot be made again at all.
    """
    return all(ignorable(wrapper) or maker(wrapper) in _LAYERED for wrapper in spec.wrappers)


class LayeredBatch:
    """A batched engine inside the wrappers of an environment; see `BatchedEnv`.

    Args:
        engine: N episodes of the environment without its wrappers.
        spec: the environment, whose wrappers `layered` accepts.
    """

    def __init__(self, engine: Any, spec: EnvironmentSpec) -> None:
        self._engine = engine
        env = make_env(spec.bare)
        self._layers: list[_Layer] = []
        for wrapper in spec.wrappers:
            if not ignorable(wrapper):
                env = wrap(env, wrapper)
                self._layers.append(_layer(env))
        shape = env.observation_space.shape or ()
        if len(shape) != 1:
            self._layers.append(_Flat())
        env.close()  # type: ignore[no-untyped-call]
        self.live = np.zeros(len(engine.live), bool)

    @property
    def broken(self) -> NDArray[np.bool_]:
        """See `BatchedEnv.broken`."""
        return np.asarray(self._engine.broken)

    def reset(self, seeds: Sequence[int]) -> NDArray[Any]:
        """See `BatchedEnv.reset`."""
        observations = self._engine.reset(seeds)
        for layer in self._layers:
            observations = layer.start(observations)
        self.live[:] = self._engine.live
        return np.array(observations)

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
        """See `BatchedEnv.step`."""
        live = self.live.copy()
        for layer in reversed(self._layers):
            actions = layer.act(actions)
        observations, rewards, terminated, truncated = self._engine.step(actions)
        for layer in self._layers:
            observations = layer.observe(observations, live)
            rewards, truncated = layer.judge(rewards, truncated)
        # An episode that a layer has cut goes on in the engine; nobody hears of it any more.
        rewards, terminated, truncated = np.where(live, rewards, 0.0), terminated & live, truncated & live
        self.live &= ~(terminated | truncated)
        return np.array(observations), rewards, terminated, truncated

    def perturb(self, rows: Sequence[int], levels: Sequence[Sequence[float]]) -> None:
        """See `BatchedEnv.perturb`."""
        self._engine.perturb(rows, levels)

    def close(self) -> None:
        """See `BatchedEnv.close`."""
        self._engine.close()


class _Layer:
    """One wrapper, for all rows; by itself it changes nothing."""

    def start(self, observations: NDArray[Any]) -> NDArray[Any]:
        """The first observations of episodes that begin."""
        return self.observe(observations, np.ones(len(observations), bool))

    def observe(self, observations: NDArray[Any], live: NDArray[np.bool_]) -> NDArray[Any]:
        """Observations after a step; ``live`` tells which rows took it."""
        return observations

    def act(self, actions: NDArray[Any]) -> NDArray[Any]:
        """What goes on to the layer inside."""
        return actions

    def judge(self, rewards: NDArray[Any], truncated: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Rewards and cuts after a step."""
        return rewards, truncated


class _Function(_Layer):
    """A wrapper that is a function of one observation, action or reward, entry by entry."""

    def __init__(self, wrapper: Any) -> None:
        self._function = wrapper.func
        self._of = next(
            word
            for word, kind in (
                ("action", wrappers.TransformAction),
                ("observation", wrappers.TransformObservation),
                ("reward", wrappers.TransformReward),
            )
            if isinstance(wrapper, kind)
        )

    def observe(self, observations: NDArray[Any], live: NDArray[np.bool_]) -> NDArray[Any]:
        return np.asarray(self._function(observations)) if self._of == "observation" else observations

    def act(self, actions: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self._function(actions)) if self._of == "action" else actions

    def judge(self, rewards: NDArray[Any], truncated: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        return (np.asarray(self._function(rewards)) if self._of == "reward" else rewards), truncated


class _Flat(_Layer):
    def observe(self, observations: NDArray[Any], live: NDArray[np.bool_]) -> NDArray[Any]:
        return observations.reshape(len(observations), -1)


class _Stack(_Layer):
    """The last k observations, the oldest first; an ended episode keeps what it saw last."""

    def __init__(self, wrapper: Any) -> None:
        self._size, self._dtype = wrapper.stack_size, wrapper.observation_space.dtype
        self._padding = None if wrapper.padding_type == "reset" else np.asarray(wrapper.padding_value)
        self._frames = np.zeros(0)

    def start(self, observations: NDArray[Any]) -> NDArray[Any]:
        padding = observations if self._padding is None else np.broadcast_to(self._padding, observations.shape)
        self._frames = np.stack([padding] * (self._size - 1) + [observations], axis=1).astype(self._dtype)
        return self._frames

    def observe(self, observations: NDArray[Any], live: NDArray[np.bool_]) -> NDArray[Any]:
        self._frames[live, :-1] = self._frames[live, 1:]
        self._frames[live, -1] = observations[live]
        return self._frames


class _StepLimit(_Layer):
    """A time limit of its own; all episodes begin together."""

    def __init__(self, wrapper: Any) -> None:
        self._limit, self._steps = wrapper._max_episode_steps, 0

    def start(self, observations: NDArray[Any]) -> NDArray[Any]:
        self._steps = 0
        return observations

    def judge(self, rewards: NDArray[Any], truncated: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        self._steps += 1
        return rewards, truncated | (self._steps >= self._limit)


def _layer(wrapper: Env) -> _Layer:
    if isinstance(wrapper, wrappers.TimeLimit):
        return _StepLimit(wrapper)
    if isinstance(wrapper, wrappers.FrameStackObservation):
        return _Stack(wrapper)
    if isinstance(wrapper, wrappers.FlattenObservation):
        return _Flat()
    assert isinstance(wrapper, gym.Wrapper)
    return _Function(wrapper)
