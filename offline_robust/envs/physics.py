"""The perturbable numbers of one simulation: how they are found, read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from offline_robust.environment.wrappers import Env
from offline_robust.envs.perturbations import FloatArray, ParameterSpec, Perturbation, registered
from offline_robust.errors import EvaluationError


class Physics(Protocol):
    """The perturbable numbers of one simulation."""

    parameters: Mapping[str, ParameterSpec]

    def read(self, name: str) -> FloatArray:
        """The current value of a parameter, (k,): several where a parameter stands for a group."""

    def write(self, name: str, values: FloatArray) -> None:
        """Sets what `read` gave."""

    def commit(self) -> None:
        """Called after a series of writes: brings whatever depends on them up to date."""

    def reset(self) -> None:
        """Back to the nominal values, bit for bit."""


class AttributePhysics:
    """Physics kept in plain attributes of a Gymnasium environment, as classic control does.

    Args:
        env: a made environment.
        env_id: tells which parameters are registered for it.
    """

    def __init__(self, env: Env, env_id: str) -> None:
        self._env: Any = env.unwrapped
        self.parameters: Mapping[str, ParameterSpec] = {
            name: spec
            for name, spec in registered(env_id).items()
            if all(hasattr(self._env, attribute) for attribute in spec.attributes)
        }
        names = {attribute for spec in self.parameters.values() for attribute in spec.attributes}
        self._nominal = {name: getattr(self._env, name) for name in names}

    def read(self, name: str) -> FloatArray:
        """See `Physics`."""
        return np.array([getattr(self._env, attribute) for attribute in self.parameters[name].attributes], np.float64)

    def write(self, name: str, values: FloatArray) -> None:
        """See `Physics`."""
        for attribute, value in zip(self.parameters[name].attributes, values, strict=True):
            setattr(self._env, attribute, float(value))

    def commit(self) -> None:
        """Nothing depends on plain attributes."""

    def reset(self) -> None:
        """See `Physics`."""
        for name, value in self._nominal.items():
            setattr(self._env, name, value)


PhysicsMaker = Callable[[Env, str], "Physics | None"]
_MAKERS: list[PhysicsMaker] = []


def register_physics(maker: PhysicsMaker) -> None:
    """Adds a way to open the physics of environments; it returns None for those that are not its own."""
    _MAKERS.append(maker)


def open_physics(env: Env, env_id: str) -> Physics:
    """The physics of a made environment, to be read and written."""
    for maker in _MAKERS:
        physics = maker(env, env_id)
        if physics is not None:
            return physics
    if (owner := model_owner(env)) is not None:
        # MuJoCo takes a while to import, and most users of the other environments do not need it.
        from offline_robust.envs.mujoco_bound import open_mujoco

        return open_mujoco(env, owner)
    return AttributePhysics(env, env_id)


def model_owner(env: Env) -> Env | None:
    """The environment that holds a MuJoCo model as its own: this one, or one inside it, as the mazes have a robot."""
    inner: Any = env.unwrapped
    held = [value.unwrapped for value in vars(inner).values() if isinstance(value, gym.Env)]
    candidates: list[Env] = [inner, *held]
    for candidate in candidates:
        if _is_model(vars(candidate).get("model")):
            return candidate
    shown: Env | None = inner if _is_model(getattr(inner, "model", None)) else None
    return shown


def _is_model(value: object) -> bool:
    return type(value).__module__.startswith("mujoco.")


def perturb(physics: Physics, perturbations: Sequence[Perturbation], levels: Sequence[float] | None = None) -> None:
    """Applies perturbations of the physics to its current state.

    They act in the stated order, each on what the one before left, except that structural ones (link lengths), for
    which the model is built again, go first.

    Args:
        physics: changed in place.
        perturbations: with modes filled in.
        levels: in place of the perturbations' own.

    Raises:
        EvaluationError: a value leaves its physical range, or zero is scaled.
    """
    chosen = list(zip(perturbations, levels or [p.level for p in perturbations], strict=True))
    chosen.sort(key=lambda pair: not physics.parameters[pair[0].parameter].structural)
    for perturbation, level in chosen:
        spec = physics.parameters[perturbation.parameter]
        before = physics.read(spec.name)
        if perturbation.mode == "scale" and not before.any():
            raise EvaluationError(
                f"{spec.name} is 0 here, scaling does nothing: give its value, as in {spec.name}=absolute@0,0.1"
            )
        after = perturbation.apply(before, level)
        spec.check(after)
        physics.write(spec.name, after)
    physics.commit()
