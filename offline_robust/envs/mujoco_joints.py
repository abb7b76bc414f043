"""Damping and its kin: what the joints of a MuJoCo robot have, and its tendons, and what its motors add to either."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

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
from offline_robust.envs.mujoco_lengths import Model, floats
from offline_robust.envs.perturbations import FloatArray

_ANGLE = 1e3
_HINGE, _SLIDE, _BALL = (int(getattr(mujoco.mjtJoint, f"mjJNT_{kind}")) for kind in ("HINGE", "SLIDE", "BALL"))
_LAID_OUT_SIDES: Sequence[dict[str, tuple[str, ...]]] = (
    {"back": ("bthigh", "bshin", "bfoot"), "front": ("fthigh", "fshin", "ffoot")},  # HalfCheetah
    {
        "right": ("thigh_joint", "leg_joint", "foot_joint"),  # Walker2d
        "left": ("thigh_left_joint", "leg_left_joint", "foot_left_joint"),
    },
)


class _Quantity(NamedTuple):
    """One quantity of joints and tendons: what it is, its units, and the option flag that switches it off.

    ``curved`` says that higher powers of the speed (or of the deflection) have coefficients of their own, ``motors``
    that an actuator can add to it: its own value times the square of its gear.
    """

    meaning: str
    at_hinge: str
    at_slide: str
    flag: str | None
    curved: bool = False
    motors: bool = False


_QUANTITIES: dict[str, _Quantity] = {
    "damping": _Quantity("viscous friction", "N m s/rad", "N s/m", "DAMPER", curved=True, motors=True),
    "stiffness": _Quantity(
        "stiffness of the spring, which pulls towards springref,", "N m/rad", "N/m", "SPRING", curved=True
    ),
    "springref": _Quantity("rest position of the spring (inert where stiffness is 0)", "rad", "m", "SPRING"),
    "armature": _Quantity(
        "inertia of the motor's rotor, seen at the joint,", "kg m^2", "kg", flag=None, motors=True
    ),
    "frictionloss": _Quantity("dry friction", "N m", "N", "FRICTIONLOSS"),
}  # fmt: skip


class _Members(NamedTuple):
    """The joints and tendons (ids) that one parameter stands for, and how a text names them."""

    joints: list[int]
    tendons: list[int]
    whose: str


def joint_parameters(model: Model) -> Iterable[Parameter | Withheld]:
    """Damping and its kin of all limb joints, of one side, and of single joints and tendons.

    Tendons that have the quantity belong to the word that stands for all, else part of the friction in the joints that
    they span would stay as it was.
    """
    joints, sides = limb_joints(model), sides_of(model)
    for quantity, what in _QUANTITIES.items():
        own = _own_tendons(model, quantity)
        groups = [(quantity, _Members(joints, own, "all limb joints" + " and tendons" * bool(own)))]
        groups += [(f"{side}_{quantity}", _Members(ids, [], f"the {side} joints")) for side, ids in sides.items()]
        groups += [
            (f"{short}_{quantity}", _Members([joint], [], f"the joint {short}"))
            for joint in joints
            if (short := short_name(model, joint))
        ]
        groups += [
            (f"{name}_{quantity}", _Members([], [tendon], f"the tendon {name}"))
            for tendon in own
            if (name := model.tendon(tendon).name)
        ]
        for name, members in groups:
            if members.joints or members.tendons:
                yield _parameter(model, name, quantity, what, members)


def limb_joints(model: Model) -> list[int]:
    """The joints (ids) that are not the way a whole robot, a target or a piece of cloth moves in the world."""
    cloth = set(model.flex_vertbodyid.tolist()) | set(model.flex_nodebodyid.tolist())
    return [
        joint
        for joint in range(model.njnt)
        if model.jnt_type[joint] in (_HINGE, _SLIDE, _BALL)
        and not floats(model, int(model.jnt_bodyid[joint]))
        and int(model.jnt_bodyid[joint]) not in cloth
    ]


def sides_of(model: Model) -> dict[str, list[int]]:
    """The limb joints of each side (ids), for the robots whose sides have names."""
    ids = {model.joint(joint).name: joint for joint in limb_joints(model)}
    for sides in _LAID_OUT_SIDES:
        if all(set(members) <= set(ids) for members in sides.values()):
            return {side: [ids[name] for name in members] for side, members in sides.items()}
    return {}


def short_name(model: Model, joint: int) -> str:
    """A joint's name without a trailing ``_joint``."""
    name: str = model.joint(joint).name
    short = name.removesuffix("_joint")
    taken = {model.joint(other).name for other in range(model.njnt) if other != joint}
    return name if short in taken else short


def _own_tendons(model: Model, quantity: str) -> list[int]:
    """Tendons with this quantity; one that has none stays without, as a tendon is no joint."""
    if quantity == "springref":
        return []
    share = _Share.at(model, quantity, Entries(f"tendon_{quantity}", np.arange(model.ntendon)))
    return [int(tendon) for tendon in np.flatnonzero((share.total(model) != 0.0) | share.curved_only(model))]


def _parameter(model: Model, name: str, quantity: str, what: _Quantity, of: _Members) -> Parameter | Withheld:
    if what.flag and disabled(model, what.flag):
        return Withheld(name, f"the model switches {quantity} off (option flag)")
    kinds = {int(model.jnt_type[joint]) for joint in of.joints}
    if quantity == "springref" and _BALL in kinds:
        return Withheld(name, "the rest position of a ball joint's spring is an orientation, not a number")
    units = [what.at_hinge] * bool(kinds & {_HINGE, _BALL})
    units += [what.at_slide] * bool(_SLIDE in kinds or of.tendons)
    low, high, mode = (-_ANGLE, _ANGLE, "absolute") if quantity == "springref" else (0.0, LARGE, None)
    limits = Limits(" or ".join(dict.fromkeys(units)), low, high, mode=mode)  # type: ignore[arg-type]
    meaning = f"{what.meaning} of {of.whose}"
    places = _places(model, quantity, of)
    if not (what.curved or what.motors):
        return entries(model, name, places, limits, meaning)
    return _with_shares(model, name, quantity, places, limits, meaning)


def _places(model: Model, quantity: str, of: _Members) -> list[Entries]:
    """Where the plain values lie: one at a hinge, a slide, a tendon and a ball's spring, three at a ball otherwise."""
    places = []
    if of.joints:
        if quantity == "stiffness":
            places.append(Entries("jnt_stiffness", np.array(of.joints)))
        elif quantity == "springref":
            places.append(Entries("qpos_spring", model.jnt_qposadr[of.joints]))
        else:
            dofs = [
                int(model.jnt_dofadr[joint]) + k
                for joint in of.joints
                for k in range(3 if model.jnt_type[joint] == _BALL else 1)
            ]
            places.append(Entries(f"dof_{quantity}", np.array(dofs)))
    if of.tendons:
        places.append(Entries(f"tendon_{quantity}", np.array(of.tendons)))
    return places


def _with_shares(
    model: Model, name: str, quantity: str, places: list[Entries], limits: Limits, meaning: str
) -> Parameter | Withheld:
    """A quantity that has further shares: coefficients of higher powers, and what a motor adds at its joint or tendon.

    The value is what is felt in all where the motion is small, and every share is scaled alike.
    """
    shares = [_Share.at(model, quantity, place) for place in places]
    nominal = np.concatenate([share.total(model) for share in shares])
    if any((share.curved_only(model)).any() for share in shares):
        return Withheld(name, f"{quantity} is nominally 0 there but for higher powers, which no one number can set")
    if len({motor for share in shares for motor in share.motors if motor >= 0}) < sum(
        int((share.motors >= 0).sum()) for share in shares
    ):
        return Withheld(name, f"one motor adds to the {quantity} of several of its joints or tendons")

    def write(simulation: Simulation, values: FloatArray) -> None:
        left = values
        for share in shares:
            share.write(simulation, left[: share.size])
            left = left[share.size :]

    def read(simulation: Simulation) -> FloatArray:
        return np.concatenate([share.total(simulation.model) for share in shares])

    fields = tuple(dict.fromkeys(path for share in shares for path in share.fields))
    return Parameter(spec_of(name, limits, nominal, meaning), fields, read, write)


class _Share(NamedTuple):
    """The shares of one quantity at k joints' degrees of freedom, or tendons.

    Attributes:
        path: the array of the plain values.
        rows: (k,), their places in it.
        curve: the array of the coefficients of higher powers, or "".
        added: the array of what actuators add, or "".
        motors: (k,), the actuator that adds there, or -1.
        gears: (k,), its gear.
    """

    path: str
    rows: NDArray[Any]
    curve: str
    added: str
    motors: NDArray[Any]
    gears: FloatArray

    @classmethod
    def at(cls, model: Model, quantity: str, place: Entries) -> _Share:
        what, kind = _QUANTITIES[quantity], place.path.partition("_")[0]
        owners = model.dof_jntid[place.rows] if kind == "dof" else place.rows
        adds = model.tendon_actuatorid if kind == "tendon" else model.jnt_actuatorid
        motors = adds[owners] if what.motors else np.full(len(place.rows), -1)
        own = getattr(model, f"actuator_{quantity}")[motors] if what.motors and model.nactuator else np.zeros(1)
        curves = model.actuator_dampingpoly[motors].any(1) if quantity == "damping" and model.nactuator else False
        motors = np.where((motors >= 0) & ((own != 0) | curves), motors, -1)
        gears = model.actuator_gear[model.actuator_outadr[motors], 0] if (motors >= 0).any() else np.zeros(len(motors))
        curve = f"{kind}_{quantity}poly" if what.curved else ""
        return cls(place.path, place.rows, curve, f"actuator_{quantity}" if what.motors else "", motors, gears)

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def fields(self) -> tuple[str, ...]:
        curved = (self.curve, "actuator_dampingpoly") if self.added == "actuator_damping" else (self.curve,)
        motors = (self.added,) if (self.motors >= 0).any() else ()
        return tuple(path for path in (self.path, *motors, *curved) if path)

    def total(self, model: Model) -> FloatArray:
        values = np.array(getattr(model, self.path)[self.rows], np.float64)
        if (self.motors >= 0).any():
            values = values + np.where(self.motors >= 0, self.gears**2 * getattr(model, self.added)[self.motors], 0.0)
        return values

    def curved_only(self, model: Model) -> NDArray[np.bool_]:
        """Where there are coefficients of higher powers and nothing else."""
        if not self.curve:
            return np.zeros(self.size, bool)
        curved = getattr(model, self.curve)[self.rows].any(axis=1)
        if self.added and (self.motors >= 0).any():
            curved = curved | ((self.motors >= 0) & model.actuator_dampingpoly[self.motors].any(axis=1))
        return np.asarray(curved & (self.total(model) == 0.0))

    def write(self, simulation: Simulation, values: FloatArray) -> None:
        base, model, factor = simulation.base, simulation.model, factors(values, self.total(simulation.base))
        alone = self.motors < 0
        plain = getattr(base, self.path)[self.rows]
        getattr(model, self.path)[self.rows] = np.where(alone, values, plain * factor)
        if self.curve:
            getattr(model, self.curve)[self.rows] = getattr(base, self.curve)[self.rows] * factor[:, None]
        motors = self.motors[~alone]
        if len(motors):
            getattr(model, self.added)[motors] = getattr(base, self.added)[motors] * factor[~alone]
            if self.added == "actuator_damping":
                model.actuator_dampingpoly[motors] = base.actuator_dampingpoly[motors] * factor[~alone][:, None]
