"""The physics of MuJoCo environments that run in Gymnasium's own loop."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np

from offline_robust.envs.mujoco_engine import supports
from offline_robust.envs.mujoco_physics import MuJoCoPhysics
from offline_robust.envs.parts import layers, parts_of
from offline_robust.envs.perturbations import FloatArray
from offline_robust.errors import EvaluationError


class BoundMuJoCoPhysics(MuJoCoPhysics):
    """The physics of a MuJoCo environment that the engine cannot run, put into the environment itself.

    Whatever part of the environment holds its model (a robot, a wrapper, an environment inside of it) is handed the
    perturbed one. Pushes are added to the forces that the environment applies itself.

    Args:
        env: made, with its wrappers.
        owner: the environment inside of it that holds the model as its own; the environment itself when None.

    Raises:
        EvaluationError: the environment keeps its model where it cannot be exchanged, or applies forces of its own in
            the middle of a pushed step.
    """

    def __init__(self, env: gym.Env[Any, Any], owner: gym.Env[Any, Any] | None = None) -> None:
        super().__init__(owner or env)
        self._inner = cast(Any, (owner or env).unwrapped)
        own = self._inner.model
        parts = (part for layer in layers(env) for part in parts_of(layer))
        self._holders = [(where, key) for where, key, part in parts if part is own]
        self._before: tuple[FloatArray, FloatArray, float] | None = None

    def commit(self) -> None:
        """See `Physics`; the environment runs on the perturbed model from now on."""
        super().commit()
        for holder, name in self._holders:
            holder[name] = self.model
        if self._inner.model is not self.model:
            raise EvaluationError(
                f"{type(self._inner).__name__} keeps its MjModel where it cannot be exchanged for a perturbed one: let "
                f"an attribute of the environment, or of one of its parts, hold it"
            )
        self._inner.init_qpos = self.qpos0

    def reset(self) -> None:
        """See `Physics`."""
        super().reset()
        self.commit()

    def activate(self) -> None:
        """Called before every reset and step: `mj_resetData` drops the pushes."""
        if self.pushes.any():
            forces = self._inner.data.xfrc_applied[:, :3]
            own = np.array(forces)
            forces += self.pushes
            self._before = own, np.array(forces), float(self._inner.data.time)

    def deactivate(self) -> None:
        """Called after every reset and step: leaves the environment the forces that it applies itself."""
        if self._before is None:
            return
        (own, pushed, time), self._before = self._before, None
        forces = self._inner.data.xfrc_applied[:, :3]
        if np.array_equal(forces, pushed):
            forces[:] = own
        elif self._inner.data.time > time and forces.any():
            raise EvaluationError(
                f"{type(self._inner).__name__} sets xfrc_applied during its steps, which takes a push away: pushes "
                f"cannot be added to it"
            )


def open_mujoco(env: gym.Env[Any, Any], owner: gym.Env[Any, Any]) -> MuJoCoPhysics:
    """The physics of an environment; ``owner`` holds its `mujoco.MjModel`: the environment itself or one inside it."""
    return MuJoCoPhysics(env) if supports(env) else BoundMuJoCoPhysics(env, owner)
