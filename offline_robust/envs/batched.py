"""Many episodes of one environment at once, each with its own physics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.making import make_env
from offline_robust.envs.pendulum import BatchedPendulum
from offline_robust.envs.perturbations import parameter_spec
from offline_robust.errors import EvaluationError

StepResult = tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Observations (N, O), rewards (N,), terminated (N,), truncated (N,)."""


class BatchedEnv(Protocol):
    """N episodes that advance together.

    ``live`` (N,) tells which episodes still run. An episode that has ended keeps its last observation, earns 0 and
    reports neither flag again; its action is ignored.
    """

    live: NDArray[np.bool_]

    def reset(self, seeds: Sequence[int]) -> NDArray[Any]:
        """Starts N episodes, one per seed, and returns their observations (N, O)."""

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Advances every live episode by one step with its action of (N, A), or (N,) where actions are discrete."""

    def close(self) -> None:
        """Frees what the episodes hold."""


class GymnasiumBatch:
    """Any Gymnasium environment, one copy per episode, stepped in a loop.

    Slower than an engine of its own, but the policy still sees all episodes in one call, and nothing can differ from
    Gymnasium. Registered physics parameters are set as attributes of the unwrapped copies.

    Args:
        env_id: the environment.
        values: for each episode the resolved values of its perturbed physics parameters.
        env_kwargs: passed to `gymnasium.make`.
    """

    def __init__(
        self, env_id: str, values: Sequence[Mapping[str, float]], env_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self._envs = [make_env(env_id, env_kwargs) for _ in values]
        for env, own in zip(self._envs, values, strict=True):
            for name, value in own.items():
                attribute = parameter_spec(name, env_id).attribute
                if not attribute or not hasattr(env.unwrapped, attribute):
                    raise EvaluationError(f"{env_id}: {name} cannot be perturbed in this environment")
                setattr(env.unwrapped, attribute, value)
        space = self._envs[0].observation_space
        self._observations = np.zeros((len(values), *(space.shape or ())), space.dtype)
        self.live = np.zeros(len(values), bool)

    def reset(self, seeds: Sequence[int]) -> NDArray[Any]:
        """Starts every episode; see `BatchedEnv.reset`."""
        for row, (env, seed) in enumerate(zip(self._envs, seeds, strict=True)):
            self._observations[row] = env.reset(seed=int(seed))[0]
        self.live[:] = True
        return self._observations.copy()

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Steps the live copies one after the other; see `BatchedEnv.step`."""
        count = len(self._envs)
        rewards = np.zeros(count)
        terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        for row in np.flatnonzero(self.live):
            step = self._envs[row].step(actions[row])
            self._observations[row], rewards[row], terminated[row], truncated[row] = step[:4]
        self.live &= ~(terminated | truncated)
        return self._observations.copy(), rewards, terminated, truncated

    def close(self) -> None:
        """Closes every copy."""
        for env in self._envs:
            env.close()  # type: ignore[no-untyped-call]


_ENGINES: dict[str, Callable[[str, Sequence[Mapping[str, float]], Mapping[str, Any] | None], BatchedEnv]] = {
    "Pendulum-v1": BatchedPendulum
}


def make_batch(
    env_id: str, values: Sequence[Mapping[str, float]], env_kwargs: Mapping[str, Any] | None = None
) -> BatchedEnv:
    """The fastest batched environment for an id: an engine of its own where there is one, else `GymnasiumBatch`.

    Args:
        env_id: a registered Gymnasium id.
        values: one mapping per episode, from the names of perturbed physics parameters to resolved values.
        env_kwargs: passed to `gymnasium.make`.

    Raises:
        EvaluationError: the environment cannot be made, or has no such parameter.
    """
    return _ENGINES.get(env_id, GymnasiumBatch)(env_id, values, env_kwargs)
