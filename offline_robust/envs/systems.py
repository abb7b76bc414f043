"""What can be perturbed in one environment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from offline_robust.environment import EnvironmentSpec, as_spec, dimension_names, make_env, make_flat, parts, step_limit
from offline_robust.environment.making import try_arguments
from offline_robust.environment.wrappers import Env
from offline_robust.envs.layers import layered
from offline_robust.envs.model_files import files_stamp, forget_assets
from offline_robust.envs.perturbations import (
    _ON_CHANGE,
    ANY,
    FloatArray,
    ParameterSpec,
    Perturbation,
    registered,
    with_mode,
)
from offline_robust.envs.physics import Physics, model_owner, open_physics, perturb
from offline_robust.errors import EvaluationError, nearest


def _simulator(env: Env) -> str:
    """The batched engine that runs an environment without wrappers: by its class, for an id can be registered anew."""
    kind = type(env.unwrapped)
    named = _ENGINES.get(f"{kind.__module__}:{kind.__qualname__}", "")
    if named or model_owner(env) is None:
        return named
    from offline_robust.envs.mujoco_engine import supports

    return "mujoco" if supports(env) else ""


_ENGINES = {
    "gymnasium.envs.classic_control.pendulum:PendulumEnv": "pendulum",
    "gymnasium.envs.classic_control.cartpole:CartPoleEnv": "cartpole",
    "offline_robust.envs.cartpole:ContinuousCartPole": "cartpole",
}


@dataclass(frozen=True)
class System:
    """One environment as evaluation sees it.

    Attributes:
        environment: what it is: id, keyword arguments, limit, wrappers.
        parameters: everything that can be perturbed: the physics, then observation and action noise.
        nominal: the unperturbed values of the physics, (k,) each.
        observation_space: vectors of numbers, as policies see it.
        action_space: vectors of numbers, or numbers 0, 1, ...
        time_limit: steps, or None.
        step_seconds: simulated time of one step, or None where the environment does not tell.
        simulator: the batched engine that runs it, "mujoco", "pendulum" or "cartpole"; "" where none does.
        names: of the numbers of an observation, where it has named parts.
        withheld: why a parameter that similar environments have cannot be perturbed in this one, by name.
    """

    environment: EnvironmentSpec
    parameters: Mapping[str, ParameterSpec]
    nominal: Mapping[str, FloatArray]
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    time_limit: int | None
    step_seconds: float | None
    simulator: str = ""
    names: tuple[str, ...] | None = None
    withheld: Mapping[str, str] = field(default_factory=dict)

    @property
    def env_id(self) -> str:
        """Its Gymnasium id."""
        return self.environment.id

    def spec(self, name: str) -> ParameterSpec:
        """Looks one parameter up.

        Raises:
            EvaluationError: the environment has no such parameter; offers the nearest names.
        """
        if name in self.withheld and name not in self.parameters:
            raise EvaluationError(f"{name} cannot be perturbed in {self.env_id}: {self.withheld[name]}")
        if name not in self.parameters:
            raise EvaluationError(f"{self.env_id} has no parameter {name!r} to perturb{nearest(name, self.parameters)}")
        return self.parameters[name]

    def ready(self, perturbation: Perturbation) -> Perturbation:
        """The perturbation with its mode filled in.

        Raises:
            EvaluationError: unknown parameter, or a schedule for what cannot change inside an episode.
        """
        spec = self.spec(perturbation.parameter)
        if spec.structural and perturbation.schedule not in ("constant", "uniform"):
            raise EvaluationError(f"{spec.name} cannot change inside an episode; use the schedule 'uniform' or none")
        return with_mode(perturbation, self.parameters)

    def physics(self, perturbations: Sequence[Perturbation]) -> tuple[Perturbation, ...]:
        """Those that act inside the simulation, in order."""
        return tuple(p for p in perturbations if self.parameters[p.parameter].target == "physics")

    def outside(self, perturbations: Sequence[Perturbation]) -> tuple[Perturbation, ...]:
        """Those that act on what the policy sees or does (`stages`), in order."""
        return tuple(p for p in perturbations if self.parameters[p.parameter].target != "physics")

    def check(self, perturbations: Sequence[Perturbation]) -> bool:
        """Applies perturbations to a scratch simulation and tells whether they leave the system nominal.

        Schedules are checked at both ends of their range; a perturbation that moves is never nominal.

        Raises:
            EvaluationError: a value leaves its physical range, or zero is scaled.
        """
        acting, outside = self.physics(perturbations), self.outside(perturbations)
        for p in outside:
            spec = self.parameters[p.parameter]
            if p.mode == "scale" and spec.nominal == 0.0:
                raise EvaluationError(f"{spec.name} is nominally 0, scaling does nothing: give its value")
            for level in (p.level, p.start if p.start is not None else p.level):
                spec.check(p.apply(np.array([spec.nominal]), level))
        still = all(not p.moves for p in perturbations)
        still &= all(
            float(p.apply(np.array([self.parameters[p.parameter].nominal]))[0]) == self.parameters[p.parameter].nominal
            for p in outside
        )
        if not acting:
            return still
        physics = _scratch(_key(self.environment), files_stamp(self.environment.kwargs))
        ends = [[p.level for p in acting]]
        if any(p.start is not None for p in acting):
            ends.append([p.level if p.start is None else p.start for p in acting])
        try:
            for levels in reversed(ends):
                physics.reset()
                perturb(physics, acting, levels)
            return still and all(np.array_equal(physics.read(n), v) for n, v in self.nominal.items())
        finally:
            physics.reset()


def system(env: str | EnvironmentSpec) -> System:
    """Describes an environment; it is made once for each description and state of the files that it names.

    Raises:
        EvaluationError: the environment cannot be made, or its observations or actions are not numbers.
    """
    spec = as_spec(env)
    return replace(_system(_key(spec), files_stamp(spec.kwargs)), environment=spec)


@lru_cache(maxsize=64)
def _system(key: str, stamp: str) -> System:
    spec = _spec(key)
    forget_assets()
    env = make_flat(spec)
    physics = _scratch(key, stamp)
    if spec.kwargs:
        try_arguments(env, spec)
    inner: Any = env.unwrapped
    # Box2D environments name their rate in the module and in the metadata alone.
    rate = env.metadata.get("render_fps") if "box2d" in type(inner).__module__ else None
    seconds = getattr(inner, "dt", getattr(inner, "tau", 1.0 / rate if rate else None))
    recorded = spec.observation_space or make_env(spec).observation_space
    found = System(
        spec,
        {**physics.parameters, **registered(ANY), **_of_parts(recorded)},
        {name: physics.read(name) for name in physics.parameters},
        env.observation_space,
        env.action_space,
        step_limit(env),
        float(seconds) if isinstance(seconds, int | float) else None,
        _simulator_within(spec),
        dimension_names(recorded),
        getattr(physics, "withheld", {}),
    )
    env.close()  # type: ignore[no-untyped-call]
    return found


def _of_parts(space: gym.Space[Any]) -> dict[str, ParameterSpec]:
    """The noise on observations again for each named part, as ``observation_noise.desired_goal``."""
    if dimension_names(space) is None:
        return {}
    found, first = {}, 0
    for part, width in parts(space):
        for spec in registered(ANY).values():
            if spec.target == "observation":
                name = f"{spec.name}.{part}"
                found[name] = replace(
                    spec, name=name, meaning=f"{part} alone: {spec.meaning}", part=(first, first + width)
                )
        first += width
    return found


def _simulator_within(spec: EnvironmentSpec) -> str:
    """The engine for an environment whose wrappers, if it has any, can be repeated for many episodes at once."""
    env = make_env(spec.bare)
    simulator = _simulator(env)
    env.close()  # type: ignore[no-untyped-call]
    return simulator if simulator and layered(spec) else ""


@lru_cache(maxsize=64)
def _scratch(key: str, stamp: str) -> Physics:
    """A simulation that nobody steps, to try perturbations on. Another ``stamp`` is another state of its files."""
    spec = _spec(key)
    return open_physics(make_env(spec), spec.id)


def forget() -> None:
    """Drops what is known of environments; they are made again when next asked for."""
    _system.cache_clear()
    _scratch.cache_clear()


_ON_CHANGE.append(forget)


def _key(spec: EnvironmentSpec) -> str:
    return json.dumps(spec.to_dict())


def _spec(key: str) -> EnvironmentSpec:
    return EnvironmentSpec.from_dict(json.loads(key), "the description", foreign=False)
