"""The parameters of a MuJoCo model that need no new model: found in the compiled model, named as in its XML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.mujoco_actuators import actuator_parameters
from offline_robust.envs.mujoco_contacts import contact_parameters
from offline_robust.envs.mujoco_fields import (
    LARGE,
    Entries,
    Limits,
    Parameter,
    Simulation,
    Withheld,
    disabled,
    entries,
    factors,
    spec_of,
)
from offline_robust.envs.mujoco_joints import joint_parameters
from offline_robust.envs.mujoco_lengths import Model
from offline_robust.envs.perturbations import FloatArray

_SPEED, _FORCE = 1e3, 1e5
_AXES = "xyz"
_UPRIGHT = 1e-3
"""Tilt of gravity, in radians, that is taken for none: InvertedDoublePendulum has one of 1e-6 to make it fall."""


def discover(model: Model) -> tuple[dict[str, Parameter], dict[str, str]]:
    """Every parameter a model has, by name: only what exists is offered. Where two would share a name, groups win.

    Returns:
        The parameters, and for those withheld the reason: a parameter that would reach only part of what its name
        says in this model is not offered.
    """
    found: dict[str, Parameter] = {}
    withheld: dict[str, str] = {}
    kinds = (_options, contact_parameters, joint_parameters, actuator_parameters, _bodies)
    for parameter in (parameter for kind in kinds for parameter in kind(model)):
        if isinstance(parameter, Withheld):
            withheld.setdefault(parameter.name, parameter.reason)
        else:
            found.setdefault(parameter.spec.name, parameter)
    # A name that a group has, offered or not, is not another one's.
    return {name: parameter for name, parameter in found.items() if name not in withheld}, withheld


def _options(model: Model) -> Iterable[Parameter | Withheld]:
    """Gravity, air and time step."""
    yield _gravity(model)
    for index, axis in enumerate(_AXES):
        still = "wind along {}; acts only where density or viscosity is above 0 (air: density=absolute@1.2)"
        limits = Limits("m/s", -_SPEED, _SPEED, mode="absolute")
        yield entries(model, f"wind_{axis}", Entries("opt.wind", [index]), limits, still.format(axis))
    yield _scalar(model, "density", Limits("kg/m^3", 0.0, 1e5), "density of the air or water around the robot")
    yield _scalar(model, "viscosity", Limits("Pa s", 0.0, 1e4), "viscosity of the air or water around the robot")
    shortest = _shortest_step(model)
    step = Limits("s", shortest, 0.1, low_open=shortest == 0.0)
    yield _scalar(model, "timestep", step, "time of one simulation step; a control step lasts frame_skip of them")


def _gravity(model: Model) -> Parameter | Withheld:
    limits, nominal = Limits("m/s^2", -1e3, 1e3), np.array(model.opt.gravity, np.float64)
    if disabled(model, "GRAVITY"):
        return Withheld("gravity", "the model switches gravity off (option flag)")
    if np.abs(nominal[:2]).max() <= _UPRIGHT * abs(nominal[2]):
        return entries(
            model, "gravity", Entries("opt.gravity", [2]), limits, "downward acceleration of gravity", sign=-1
        )
    # A slope is often made by tilting gravity: all of it must grow, in its own direction.
    strength = float(np.linalg.norm(nominal))

    def read(simulation: Simulation) -> FloatArray:
        now = simulation.model.opt.gravity
        return np.array([strength if np.array_equal(now, nominal) else now @ nominal / strength])

    def write(simulation: Simulation, values: FloatArray) -> None:
        simulation.model.opt.gravity[:] = nominal * factors(values, np.array([strength]))

    spec = spec_of(
        "gravity", limits, np.array([strength]), "acceleration of gravity, in the direction that it has here"
    )
    return Parameter(spec, ("opt.gravity",), read, write)


def _shortest_step(model: Model) -> float:
    """The time step (s) below which delayed actuators or sensors would forget sooner, as they keep so many samples."""
    least = [0.0]
    for kind in ("actuator", "sensor"):
        delays, kept = getattr(model, f"{kind}_delay"), getattr(model, f"{kind}_history")[:, 0]
        least += (delays / np.maximum(kept, 1))[kept > 0].tolist()
    return min(max(least), float(model.opt.timestep))


def _scalar(model: Model, name: str, limits: Limits, meaning: str) -> Parameter:
    def read(simulation: Simulation) -> FloatArray:
        return np.array([getattr(simulation.model.opt, name)], np.float64)

    def write(simulation: Simulation, values: FloatArray) -> None:
        setattr(simulation.model.opt, name, float(values[0]))

    nominal = np.array([getattr(model.opt, name)])
    return Parameter(spec_of(name, limits, nominal, meaning), (f"opt.{name}",), read, write)


def _bodies(model: Model) -> Iterable[Parameter]:
    """Masses, and steady forces on single bodies."""
    heavy = np.flatnonzero(model.body_mass > 0)
    if len(heavy):
        yield _mass(model, "mass", heavy, "mass of every body; inertias follow")
    for body in range(1, model.nbody):
        name = model.body(body).name
        if not name:
            continue
        if model.body_mass[body] > 0:
            yield _mass(model, f"{name}_mass", np.array([body]), f"mass of the body {name}; its inertia follows")
        for axis in range(3):
            yield _push(f"{name}_push_{_AXES[axis]}", body, axis)


def _mass(model: Model, name: str, bodies: NDArray[Any], meaning: str) -> Parameter:
    def read(simulation: Simulation) -> FloatArray:
        return np.array(simulation.model.body_mass[bodies], np.float64)

    def write(simulation: Simulation, values: FloatArray) -> None:
        # The shape stays and its density changes, so that inertia goes as mass.
        factors = values / simulation.base.body_mass[bodies]
        simulation.model.body_inertia[bodies] = simulation.base.body_inertia[bodies] * factors[:, None]
        simulation.model.body_mass[bodies] = values

    spec = spec_of(name, Limits("kg", 0.0, LARGE, low_open=True), model.body_mass[bodies], meaning)
    return Parameter(spec, ("body_mass", "body_inertia"), read, write)


def _push(name: str, body: int, axis: int) -> Parameter:
    def read(simulation: Simulation) -> FloatArray:
        return np.array([simulation.pushes[body, axis]])

    def write(simulation: Simulation, values: FloatArray) -> None:
        simulation.pushes[body, axis] = values[0]

    meaning = f"steady force along the world's {_AXES[axis]} on the centre of mass; no effect where no joint can yield"
    spec = spec_of(name, Limits("N", -_FORCE, _FORCE, mode="absolute"), np.zeros(1), meaning)
    return Parameter(spec, (), read, write)
