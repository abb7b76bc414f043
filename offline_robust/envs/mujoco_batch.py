"""MuJoCo environments in evaluation: perturbed models for the batched engine, or for Gymnasium's own loop."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from offline_robust.environment import make_env
from offline_robust.envs.mujoco_engine import MuJoCoSimulation
from offline_robust.envs.mujoco_physics import MuJoCoPhysics
from offline_robust.envs.perturbations import FloatArray, Perturbation
from offline_robust.envs.physics import perturb
from offline_robust.envs.systems import System


class MuJoCoBatch(MuJoCoSimulation):
    """N episodes of one of Gymnasium's MuJoCo environments, each with its own physics; see `BatchedEnv`.

    Args:
        system: the environment.
        episodes: for each episode the perturbations of its physics. Equal ones share a model.
    """

    def __init__(self, system: System, episodes: Sequence[Sequence[Perturbation]]) -> None:
        env = make_env(system.environment)
        self._physics = MuJoCoPhysics(env)
        self._acting = [tuple(own) for own in episodes]
        built = {own: self._build(own) for own in dict.fromkeys(self._acting)}
        self._own = [built[own] for own in self._acting]
        self._forks: dict[int, MuJoCoPhysics] = {}
        super().__init__(env, *self._lists())

    def perturb(self, rows: Sequence[int], levels: Sequence[Sequence[float]]) -> None:
        """See `BatchedEnv.perturb`."""
        for row, own in zip(rows, levels, strict=True):
            if row not in self._forks:
                self._forks[row] = self._physics.fork()
            physics = self._forks[row]
            physics.reset()
            perturb(physics, self._acting[row], own)
            self._own[row] = (physics.model, physics.pushes)
        self.set_models(*self._lists())

    def _build(self, acting: Sequence[Perturbation]) -> tuple[Any, FloatArray]:
        self._physics.reset()
        if acting:
            perturb(self._physics, acting)
        return copy.copy(self._physics.model), self._physics.pushes.copy()

    def _lists(self) -> tuple[list[Any], list[FloatArray] | None]:
        models, pushes = [model for model, _ in self._own], [push for _, push in self._own]
        return models, pushes if any(push.any() for push in pushes) else None
