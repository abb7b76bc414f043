"""The parameters of a MuJoCo model that need no new model: found in the compiled model, named as in its XML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.mujoco_lengths import Model, floats
from offline_robust.envs.perturbations import FloatArray, Mode, ParameterSpec

_LARGE = 1e6
_SPEED, _FORCE, _GEAR, _ANGLE = 1e3, 1e5, 1e4, 1e3
_AXES = "xyz"
_LAID_OUT_SIDES: Sequence[dict[str, tuple[str, ...]]] = (
    {"back": ("bthigh", "bshin", "bfoot"), "front": ("fthigh", "fshin", "ffoot")},  # HalfCheetah
    {
        "right": ("thigh_joint", "leg_joint", "foot_joint"),  # Walker2d
        "left": ("thigh_left_joint", "leg_left_joint", "foot_left_joint"),
    },
)


@dataclass
class Simulation:
    """A model being perturbed.

    Attributes:
        base: the model before any of these parameters is written; never changed.
        model: its perturbed copy.
        pushes: forces (nbody, 3) on the bodies, in N, in the world's frame.
        written: paths of the fields of ``model`` that may differ from those of ``base``.
        scratch: a `mujoco.MjData` of ``model`` to compute with, once there is one.
    """

    base: Model
    model: Model
    pushes: FloatArray
    written: set[str] = field(default_factory=set)
    scratch: Any = None


@dataclass(frozen=True)
class Parameter:
    """How one parameter lies in the model.

    Attributes:
        spec: its name, unit and range.
        fields: the paths that ``write`` changes, from a `Simulation`'s ``model``; none for pushes.
        read: the current values (k,).
        write: sets them; what equals ``base`` becomes bit for bit what ``base`` holds.
    """

    spec: ParameterSpec
    fields: tuple[str, ...]
    read: Callable[[Simulation], FloatArray]
    write: Callable[[Simulation, FloatArray], None]


class _Range(NamedTuple):
    unit: str
    low: float
    high: float
    low_open: bool = False
    mode: Mode | None = None


def discover(model: Model) -> dict[str, Parameter]:
    """Every parameter a model has, by name: only what exists is offered. Where two would share a name, groups win."""
    found: dict[str, Parameter] = {}
    for parameter in [*_options(model), *_contacts(model), *_joints(model), *_actuators(model), *_bodies(model)]:
        found.setdefault(parameter.spec.name, parameter)
    return found


def _spec(name: str, limits: _Range, nominal: FloatArray, meaning: str) -> ParameterSpec:
    # What is nominally 0 cannot be scaled.
    mode: Mode = limits.mode or ("scale" if nominal.any() else "absolute")
    return ParameterSpec(name, limits.unit, limits.low, limits.high, mode, meaning, low_open=limits.low_open)


def _entries(model: Model, name: str, path: str, index: Any, limits: _Range, meaning: str, sign: int = 1) -> Parameter:
    """A parameter that is plain entries ``index`` of one array of the model."""
    get = attrgetter(path)

    def read(simulation: Simulation) -> FloatArray:
        # Adding 0 turns the -0 of a flipped zero into 0.
        return sign * np.array(get(simulation.model)[index], np.float64) + 0.0

    def write(simulation: Simulation, values: FloatArray) -> None:
        get(simulation.model)[index] = sign * values

    nominal = np.array(get(model)[index], np.float64)
    return Parameter(_spec(name, limits, nominal, meaning), (path,), read, write)


def _options(model: Model) -> Iterable[Parameter]:
    """Gravity, air and time step."""
    earth = _Range("m/s^2", -1e3, 1e3)
    yield _entries(model, "gravity", "opt.gravity", [2], earth, "downward acceleration of gravity", sign=-1)
    for index, axis in enumerate(_AXES):
        still = "wind along {}; acts only where density or viscosity is above 0 (air: density=absolute@1.2)"
        limits = _Range("m/s", -_SPEED, _SPEED, mode="absolute")
        yield _entries(model, f"wind_{axis}", "opt.wind", [index], limits, still.format(axis))
    yield _scalar(model, "density", _Range("kg/m^3", 0.0, 1e5), "density of the air or water around the robot")
    yield _scalar(model, "viscosity", _Range("Pa s", 0.0, 1e4), "viscosity of the air or water around the robot")
    step = _Range("s", 0.0, 0.1, low_open=True)
    yield _scalar(model, "timestep", step, "time of one simulation step; a control step lasts frame_skip of them")


def _scalar(model: Model, name: str, limits: _Range, meaning: str) -> Parameter:
    def read(simulation: Simulation) -> FloatArray:
        return np.array([getattr(simulation.model.opt, name)], np.float64)

    def write(simulation: Simulation, values: FloatArray) -> None:
        setattr(simulation.model.opt, name, float(values[0]))

    nominal = np.array([getattr(model.opt, name)])
    return Parameter(_spec(name, limits, nominal, meaning), (f"opt.{name}",), read, write)


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

    spec = _spec(name, _Range("kg", 0.0, _LARGE, low_open=True), model.body_mass[bodies], meaning)
    return Parameter(spec, ("body_mass", "body_inertia"), read, write)


def _push(name: str, body: int, axis: int) -> Parameter:
    def read(simulation: Simulation) -> FloatArray:
        return np.array([simulation.pushes[body, axis]])

    def write(simulation: Simulation, values: FloatArray) -> None:
        simulation.pushes[body, axis] = values[0]

    meaning = f"steady force along the world's {_AXES[axis]} on the centre of mass; no effect where no joint can yield"
    spec = _spec(name, _Range("N", -_FORCE, _FORCE, mode="absolute"), np.zeros(1), meaning)
    return Parameter(spec, (), read, write)


def _contacts(model: Model) -> Iterable[Parameter]:
    """Sliding friction."""
    touching = np.flatnonzero(_can_collide(model))
    if not len(touching):
        return
    limits = _Range("-", 0.0, 1e3)
    every = "sliding friction of everything that can touch, robot and floor"
    yield _entries(model, "friction", "geom_friction", (touching, 0), limits, every)
    ground = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD))
    floor = np.array([g for g in touching if model.geom_type[g] in ground and model.geom_bodyid[g] == 0], np.int64)
    if not len(floor):
        return
    alone = (
        "the floor's own sliding friction, as RRLS sets it; a contact takes the larger one of its two sides, so this "
        "does nothing below the robot's own friction: floor_friction is what the feet feel"
    )
    yield _entries(model, "world_friction", "geom_friction", (floor, 0), limits, alone)
    if _decides_friction_only(model, floor, touching):
        yield _floor_friction(model, floor, limits)


def _floor_friction(model: Model, floor: NDArray[np.int64], limits: _Range) -> Parameter:
    def read(simulation: Simulation) -> FloatArray:
        return np.array(simulation.model.geom_friction[floor, 0], np.float64)

    def write(simulation: Simulation, values: FloatArray) -> None:
        changed = values != simulation.model.geom_friction[floor, 0]
        simulation.model.geom_friction[floor, 0] = values
        simulation.model.geom_priority[floor[changed]] = simulation.base.geom_priority.max() + 1

    nominal = np.array(model.geom_friction[floor, 0], np.float64)
    meaning = (
        "sliding friction of every contact with the floor once it differs from the nominal value; at the nominal value "
        "the robot's own friction counts where it is larger"
    )
    return Parameter(_spec("floor_friction", limits, nominal, meaning), ("geom_friction", "geom_priority"), read, write)


def _can_collide(model: Model) -> NDArray[np.bool_]:
    """Geoms (ngeom,) that share a contact type with a geom that moves against them."""
    meets = (model.geom_contype[:, None] & model.geom_conaffinity[None, :]) != 0
    weld = model.body_weldid[model.geom_bodyid]
    touch = (meets | meets.T) & (weld[:, None] != weld[None, :])
    return np.asarray(touch.any(axis=1), np.bool_)


def _decides_friction_only(model: Model, floor: NDArray[np.int64], geoms: NDArray[np.int64]) -> bool:
    """Whether priority given to the floor changes sliding friction and nothing else.

    Priority makes a geom decide a contact's dimension, softness and other frictions too. That changes nothing if the
    floor has what contacts have now: the largest dimension and frictions of both sides, and the softness of all.
    """
    soft = np.concatenate([model.geom_solref[geoms], model.geom_solimp[geoms]], axis=1)
    rest = np.concatenate([model.geom_friction[:, 1:], model.geom_condim[:, None]], axis=1)
    return bool((soft == soft[0]).all() and (rest[floor].min(0) >= rest[geoms].max(0)).all())


_JOINT_QUANTITIES: dict[str, tuple[str, str, str, float, str]] = {
    "damping": ("dof_damping", "N m s/rad", "N s/m", 0.0, "viscous friction"),
    "stiffness": ("jnt_stiffness", "N m/rad", "N/m", 0.0, "stiffness of the spring, which pulls towards springref,"),
    "springref": ("qpos_spring", "rad", "m", -_ANGLE, "rest position of the spring (inert where stiffness is 0)"),
    "armature": ("dof_armature", "kg m^2", "kg", 0.0, "inertia of the motor's rotor, seen at the joint,"),
    "frictionloss": ("dof_frictionloss", "N m", "N", 0.0, "dry friction"),
}
"""For each quantity of a joint: field, unit at a hinge, unit at a slide, smallest value, and what it is."""


def _joints(model: Model) -> Iterable[Parameter]:
    """Damping and its kin of all limb joints, of one side, and of single joints."""
    joints = limb_joints(model)
    if not joints:
        return
    for quantity in _JOINT_QUANTITIES:
        yield _joint_quantity(model, quantity, quantity, joints, "all limb joints")
        for side, members in _sides(model).items():
            yield _joint_quantity(model, f"{side}_{quantity}", quantity, members, f"the {side} joints")
        for joint in joints:
            short = _short(model, joint)
            if short:
                yield _joint_quantity(model, f"{short}_{quantity}", quantity, [joint], f"the joint {short}")


def limb_joints(model: Model) -> list[int]:
    """The hinges and slides (ids) that are not the way a whole robot, or Reacher's target, moves in the world."""
    simple = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
    return [
        joint
        for joint in range(model.njnt)
        if model.jnt_type[joint] in simple and not floats(model, int(model.jnt_bodyid[joint]))
    ]


def _joint_quantity(model: Model, name: str, quantity: str, joints: list[int], whose: str) -> Parameter:
    path, at_hinge, at_slide, low, meaning = _JOINT_QUANTITIES[quantity]
    kinds = {int(model.jnt_type[joint]) for joint in joints}
    units = [at_hinge] * (int(mujoco.mjtJoint.mjJNT_HINGE) in kinds)
    units += [at_slide] * (int(mujoco.mjtJoint.mjJNT_SLIDE) in kinds)
    address = {"dof": model.jnt_dofadr, "qpo": model.jnt_qposadr}.get(path[:3], np.arange(model.njnt))
    limits = _Range(" or ".join(units), low, _ANGLE if low < 0 else _LARGE, mode="absolute" if low < 0 else None)
    return _entries(model, name, path, np.array(address)[joints], limits, f"{meaning} of {whose}")


def _sides(model: Model) -> dict[str, list[int]]:
    """The limb joints of each side (ids), for the robots whose sides have names."""
    ids = {model.joint(joint).name: joint for joint in limb_joints(model)}
    for sides in _LAID_OUT_SIDES:
        if all(set(members) <= set(ids) for members in sides.values()):
            return {side: [ids[name] for name in members] for side, members in sides.items()}
    return {}


def _short(model: Model, joint: int) -> str:
    """A joint's name without a trailing ``_joint``."""
    name: str = model.joint(joint).name
    short = name.removesuffix("_joint")
    taken = {model.joint(other).name for other in range(model.njnt) if other != joint}
    return name if short in taken else short


def _actuators(model: Model) -> Iterable[Parameter]:
    """Strength and range of the motors: all, one side's, and those of single joints."""
    everything = np.arange(model.nu)
    if not len(everything):
        return
    on_joint = model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT)
    driven = np.where(on_joint, model.actuator_trnid[:, 0], -1)
    groups = [("", everything, "every motor")]
    for side, members in _sides(model).items():
        groups.append((f"{side}_", everything[np.isin(driven, members)], f"the {side} motors"))
    for joint in sorted(set(driven[driven >= 0].tolist())):
        short = _short(model, joint)
        if short:
            groups.append((f"{short}_", everything[driven == joint], f"the motor at {short}"))
    for prefix, motors, whose in groups:
        limits = _Range("-", -_GEAR, _GEAR)
        meaning = f"strength of {whose}: force or torque for each unit of control"
        yield _entries(model, f"{prefix}gear", "actuator_gear", (motors, 0), limits, meaning)
        limited = motors[model.actuator_ctrllimited[motors].astype(bool)]
        if len(limited):
            yield _control_range(model, f"{prefix}ctrlrange", limited, whose)


def _control_range(model: Model, name: str, motors: NDArray[Any], whose: str) -> Parameter:
    def halves(of: Model) -> FloatArray:
        return np.array((of.actuator_ctrlrange[motors, 1] - of.actuator_ctrlrange[motors, 0]) / 2, np.float64)

    def write(simulation: Simulation, values: FloatArray) -> None:
        nominal = simulation.base.actuator_ctrlrange[motors]
        ends = nominal.mean(1, keepdims=True) + values[:, None] * np.array([-1.0, 1.0])
        kept = (values == halves(simulation.base))[:, None]
        simulation.model.actuator_ctrlrange[motors] = np.where(kept, nominal, ends)

    meaning = f"largest control that {whose} follows, to either side of the middle; larger actions are clipped"
    spec = _spec(name, _Range("-", 0.0, _LARGE), halves(model), meaning)
    return Parameter(spec, ("actuator_ctrlrange",), lambda simulation: halves(simulation.model), write)
