"""Many episodes of one environment at once, each with its own physics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from offline_robust.environment import make_flat
from offline_robust.envs.cartpole_engine import BatchedCartPole
from offline_robust.envs.layers import LayeredBatch
from offline_robust.envs.pendulum import BatchedPendulum
from offline_robust.envs.perturbations import Perturbation
from offline_robust.envs.physics import open_physics, perturb
from offline_robust.envs.systems import System
from offline_robust.envs.systems import system as describe
from offline_robust.errors import EvaluationError

StepResult = tuple[NDArray[Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Observations (N, O), rewards (N,), terminated (N,), truncated (N,)."""

Perturbations = Sequence[Perturbation]
"""The perturbations of one episode's physics, in order, with modes filled in."""


class BatchedEnv(Protocol):
    """N episodes that advance together.

    ``live`` (N,) tells which episodes still run. An episode that has ended keeps its last observation, earns 0 and
    reports neither flag again; its action is ignored.
    """

    live: NDArray[np.bool_]

    @property
    def broken(self) -> NDArray[np.bool_]:
        """(N,), in which episodes the simulator met figures that it could not go on with since the last reset."""

    def reset(self, seeds: Sequence[int]) -> NDArray[Any]:
        """Starts N episodes, one per seed, and returns their observations (N, O)."""

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Advances every live episode by one step with its action of (N, A), or (N,) where actions are discrete."""

    def perturb(self, rows: Sequence[int], levels: Sequence[Sequence[float]]) -> None:
        """Changes the physics of some episodes from the next step on.

        Args:
            rows: which episodes.
            levels: for each of them new levels of the perturbations it was made with, one each.
        """

    def close(self) -> None:
        """Frees what the episodes hold."""


class GymnasiumBatch:
    """Any Gymnasium environment, one copy per episode, stepped in a loop.

    Slower than an engine of its own, but the policy still sees all episodes in one call, and nothing can differ from
    Gymnasium.

    Args:
        system: the environment.
        episodes: for each episode the perturbations of its physics.
    """

    def __init__(self, system: System, episodes: Sequence[Perturbations]) -> None:
        self._envs = [make_flat(system.environment) for _ in episodes]
        self._name = system.env_id
        self._physics = [open_physics(env, system.env_id) for env in self._envs]
        self._episodes = [tuple(own) for own in episodes]
        for physics, own in zip(self._physics, self._episodes, strict=True):
            if own:
                perturb(physics, own)
        # Where an environment keeps its physics outside of itself, they are put in place before it is used and taken
        # back afterwards, so that no other environment of the process sees them.
        self._activate = [getattr(physics, "activate", None) for physics in self._physics]
        self._deactivate = [getattr(physics, "deactivate", None) for physics in self._physics]
        space = system.observation_space
        self._observations = np.zeros((len(episodes), *(space.shape or ())), space.dtype)
        self.live = np.zeros(len(episodes), bool)
        self.broken = np.zeros(len(episodes), bool)

    def reset(self, seeds: Sequence[int]) -> NDArray[Any]:
        """Starts every episode; see `BatchedEnv.reset`."""
        for row, (env, seed) in enumerate(zip(self._envs, seeds, strict=True)):
            self._observations[row] = self._use(row, env.reset, seed=int(seed))[0]
        self.live[:] = True
        return self._observations.copy()

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Steps the live copies one after the other; see `BatchedEnv.step`."""
        count = len(self._envs)
        rewards = np.zeros(count)
        terminated, truncated = np.zeros(count, bool), np.zeros(count, bool)
        for row in np.flatnonzero(self.live).tolist():
            step = self._use(row, self._envs[row].step, actions[row])
            self._observations[row] = step[0]
            rewards[row] = self._one("reward", step[1])
            terminated[row], truncated[row] = self._one("terminated", step[2]), self._one("truncated", step[3])
        self.live &= ~(terminated | truncated)
        return self._observations.copy(), rewards, terminated, truncated

    def perturb(self, rows: Sequence[int], levels: Sequence[Sequence[float]]) -> None:
        """See `BatchedEnv.perturb`."""
        for row, own in zip(rows, levels, strict=True):
            self._physics[row].reset()
            perturb(self._physics[row], self._episodes[row], own)

    def close(self) -> None:
        """Closes every copy."""
        for env in self._envs:
            env.close()  # type: ignore[no-untyped-call]

    def _one(self, name: str, value: Any) -> Any:
        """A number, also where an environment wraps it in an array of one."""
        if isinstance(value, float | int | np.number | np.bool_):
            return value
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "fiub":
            shown = f"{array.dtype} of shape {array.shape}" if array.dtype.kind in "fiub" else f"{value!r:.40}"
            raise EvaluationError(f"{self._name}: step returns {shown} as {name}, where one number is needed")
        return array.item()

    def _use(self, row: int, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """One reset or step of a copy, with its own physics in place for that long."""
        activate, deactivate = self._activate[row], self._deactivate[row]
        if activate is not None:
            activate()
        try:
            return call(*args, **options)
        finally:
            if deactivate is not None:
                deactivate()


BatchMaker = Callable[[System, Sequence[Perturbations]], BatchedEnv]


def make_batch(system: System, episodes: Sequence[Perturbations]) -> BatchedEnv:
    """The fastest batched environment there is for a system: an engine of its own, else `GymnasiumBatch`.

    Args:
        system: the environment, see `offline_robust.envs.system`.
        episodes: for each episode the perturbations of its physics (`System.physics`), with modes filled in.

    Raises:
        EvaluationError: a value leaves its physical range.
    """
    if not system.simulator:
        return GymnasiumBatch(system, episodes)
    spec = system.environment
    if not spec.wrappers:
        return _engine(system.simulator)(system, episodes)
    return LayeredBatch(_engine(system.simulator)(describe(spec.bare), episodes), spec)


def _engine(simulator: str) -> BatchMaker:
    if simulator == "pendulum":
        return BatchedPendulum
    if simulator == "cartpole":
        return BatchedCartPole
    # MuJoCo takes a while to import, and most users of the other environments do not need it.
    from offline_robust.envs.mujoco_batch import MuJoCoBatch

    return MuJoCoBatch
