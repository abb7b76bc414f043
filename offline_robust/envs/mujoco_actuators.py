"""Strength and control range of a MuJoCo robot's actuators: motors, servos, muscles, thrusters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.mujoco_fields import LARGE, Limits, Parameter, Simulation, Withheld, disabled, factors, spec_of
from offline_robust.envs.mujoco_joints import short_name, sides_of
from offline_robust.envs.mujoco_lengths import Model
from offline_robust.envs.perturbations import FloatArray
from offline_robust.errors import EvaluationError

_GEAR = 1e4
_ROUNDING = 1e-12
_FORCE, _AUTO = 2, 3
"""Places of a muscle's peak force, and of what it is computed from where that is negative, in its parameters."""


def _codes(kind: str, *names: str) -> list[int]:
    return [int(getattr(getattr(mujoco, f"mjt{kind.title()}"), f"mj{kind.upper()}_{name}")) for name in names]


_AT_JOINT = _codes("trn", "JOINT", "JOINTINPARENT")
_ALONG = [*_AT_JOINT, *_codes("trn", "TENDON", "SLIDERCRANK")]
_TENDON = _codes("trn", "TENDON")
_LINEAR_GAINS, _LINEAR_BIASES = _codes("gain", "FIXED", "AFFINE", "MUSCLE"), _codes("bias", "NONE", "AFFINE", "MUSCLE")
_FIXED, _NO_BIAS, _MUSCLE = _codes("gain", "FIXED"), _codes("bias", "NONE"), _codes("gain", "MUSCLE")
_MUSCLE_BIAS = _codes("bias", "MUSCLE")


class _Motors(NamedTuple):
    """The actuators (ids) that one parameter stands for, with the word before its name and how a text names them."""

    prefix: str
    ids: NDArray[np.int64]
    whose: str


def actuator_parameters(model: Model) -> Iterable[Parameter | Withheld]:
    """Strength and range of the motors: all, one side's, and those of single joints."""
    if not model.nactuator:
        return
    everything = np.arange(model.nactuator)
    driven = np.where(np.isin(model.actuator_trntype, _AT_JOINT), model.actuator_trnid[:, 0], -1)
    groups = [_Motors("", everything, "every motor")]
    for side, members in sides_of(model).items():
        groups.append(_Motors(f"{side}_", everything[np.isin(driven, members)], f"the {side} motors"))
    for joint in sorted(set(driven[driven >= 0].tolist())):
        short = short_name(model, joint)
        if short:
            groups.append(_Motors(f"{short}_", everything[driven == joint], f"the motor at {short}"))
    for motors in (group for group in groups if len(group.ids)):
        yield _strength(model, motors)
        yield from _control_range(model, motors)


def _strength(model: Model, motors: _Motors) -> Parameter | Withheld:
    """What a motor gives for the same control in the same state, limits of its force included.

    The gear of a plain motor scales its force and nothing else, so that is what changes. The length and speed that a
    servo or a muscle feels are scaled by the gear too, which would make half the gear a weaker spring towards another
    place: there the gear stays and the force law (gain, bias, muscle's peak force) is scaled, with the limits of
    the force. What is read and written is the gear that would be as strong.
    """
    name = f"{motors.prefix}gear"
    if disabled(model, "ACTUATION"):
        return Withheld(name, "the model switches its actuators off (option flag)")
    strange = [actuator for actuator in motors.ids if not _scalable(model, actuator)]
    if strange:
        kind = model.actuator(int(strange[0])).name or f"number {strange[0]}"
        law = "a law that cannot be scaled exactly (plugin, callback, PID, DC motor, orientation)"
        return Withheld(name, f"the force of the actuator {kind} follows {law}")
    limits = [limit for limit in _shared_limits(model) if np.isin(limit.motors, motors.ids).any()]
    for limit in limits:
        if not np.isin(limit.motors, motors.ids).all() or limit.blocked:
            return Withheld(name, f"{limit.what} limits the sum of several forces" + _instead(motors.prefix, limit))
    by_gear = np.array([_plain(model, int(actuator)) for actuator in motors.ids], bool)
    nominal, ids = strengths(model)[motors.ids], motors.ids
    outputs = model.actuator_outadr[ids]
    muscles = np.isin(model.actuator_gaintype[ids], _MUSCLE) | np.isin(model.actuator_biastype[ids], _MUSCLE_BIAS)

    def read(simulation: Simulation) -> FloatArray:
        gears = np.array(simulation.model.actuator_gear[outputs, 0], np.float64)
        return np.where(by_gear, gears, simulation.strengths[ids])

    def write(simulation: Simulation, values: FloatArray) -> None:
        factor = factors(values, nominal)
        if (factor[muscles] < 0.0).any():
            raise EvaluationError(f"{name}: a muscle cannot push, so its strength keeps its sign")
        for limit in limits:
            _write_limit(simulation, limit, factor[np.searchsorted(ids, limit.motors)])
        simulation.model.actuator_gear[outputs[by_gear], 0] = values[by_gear]
        simulation.strengths[ids] = values
        if not by_gear.all():
            _scale_force(simulation, ids[~by_gear], factor[~by_gear])

    meaning = f"strength of {motors.whose}: force or torque for each unit of control"
    fields = ["actuator_gear"] * bool(by_gear.any())
    if not by_gear.all():
        fields += ["actuator_gainprm", "actuator_biasprm", "actuator_forcerange"]
    fields += dict.fromkeys(limit.path for limit in limits)
    return Parameter(spec_of(name, Limits("-", -_GEAR, _GEAR), nominal, meaning), tuple(fields), read, write)


def strengths(model: Model) -> FloatArray:
    """The gear of every actuator (nactuator,); where it is a direction, its largest component."""
    gears = model.actuator_gear[model.actuator_outadr]
    scalar = np.array([_has_one_gear(model, actuator) for actuator in range(model.nactuator)], bool)
    main = np.where(scalar, 0, np.abs(gears).argmax(axis=1))
    return np.array(np.take_along_axis(gears, main[:, None], axis=1)[:, 0], np.float64)


def keep_muscles(base: Model, model: Model) -> None:
    """Gives muscles whose peak force MuJoCo derives from the robot's inertia the force that they have in ``base``.

    The derived force grows with the mass that the muscle moves: a heavier robot would silently become a stronger one.
    """
    for path, types, kind in (("gainprm", "gaintype", _MUSCLE), ("biasprm", "biastype", _MUSCLE_BIAS)):
        of = np.isin(getattr(base, f"actuator_{types}"), kind)
        parameters = getattr(model, f"actuator_{path}")
        for actuator in np.flatnonzero(of & (parameters[:, _FORCE] < 0)):
            parameters[actuator, _FORCE] = _peak(base, getattr(base, f"actuator_{path}")[actuator], int(actuator))


def _peak(base: Model, parameters: FloatArray, actuator: int) -> float:
    force = float(parameters[_FORCE])
    acceleration = float(base.actuator_acc0[base.actuator_outadr[actuator]])
    return float(parameters[_AUTO]) / max(mujoco.mjMINVAL, acceleration) if force < 0 else force


def _scalable(model: Model, actuator: int) -> bool:
    """Whether the force is a sum of terms that each have a coefficient of their own, and a gear that transmits it."""
    return bool(
        model.actuator_gaintype[actuator] in _LINEAR_GAINS
        and model.actuator_biastype[actuator] in _LINEAR_BIASES
        and model.actuator_plugin[actuator] < 0
        and model.actuator_outnum[actuator] == 1
        and (_plain(model, actuator) or model.actuator_gear[model.actuator_outadr[actuator]].any())
    )


def _has_one_gear(model: Model, actuator: int) -> bool:
    """Whether the gear is one number: at a ball or free joint, a site and a body it is a direction, or inert."""
    kind, target = model.actuator_trntype[actuator], int(model.actuator_trnid[actuator, 0])
    single = (int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE))
    return kind in _ALONG and (kind not in _AT_JOINT or model.jnt_type[target] in single)


def _plain(model: Model, actuator: int) -> bool:
    """Whether the gear scales the actuator's force and nothing else."""
    scalar, target = _has_one_gear(model, actuator), int(model.actuator_trnid[actuator, 0])
    # Forces along a limited tendon are limited before the gear.
    limited = model.actuator_trntype[actuator] in _TENDON and model.tendon_actfrclimited[target]
    law = (model.actuator_gaintype[actuator] in _FIXED) and (model.actuator_biastype[actuator] in _NO_BIAS)
    adds = [model.actuator_damping[actuator], model.actuator_armature[actuator], model.actuator_dampingpoly[actuator]]
    return bool(
        scalar and law and not limited and not any(np.any(a) for a in adds) and model.actuator_plugin[actuator] < 0
    )


def _scale_force(simulation: Simulation, ids: NDArray[np.int64], factor: FloatArray) -> None:
    base, model = simulation.base, simulation.model
    for path, types, kind in (("gainprm", "gaintype", _MUSCLE), ("biasprm", "biastype", _MUSCLE_BIAS)):
        nominal, now = getattr(base, f"actuator_{path}"), getattr(model, f"actuator_{path}")
        muscles = np.isin(getattr(base, f"actuator_{types}")[ids], kind)
        now[ids[~muscles]] = nominal[ids[~muscles]] * factor[~muscles][:, None]
        for actuator, one in zip(ids[muscles].tolist(), factor[muscles].tolist(), strict=True):
            peak = _peak(base, nominal[actuator], actuator) * one
            now[actuator, _FORCE] = nominal[actuator, _FORCE] if one == 1.0 else peak
    model.actuator_forcerange[ids] = _scaled(base.actuator_forcerange[ids], factor)


def _scaled(ranges: FloatArray, factor: FloatArray) -> FloatArray:
    """Ranges (k, 2) times factors (k,), of which a negative one swaps the ends."""
    ends = ranges * factor[:, None]
    return np.asarray(np.where(factor[:, None] < 0.0, ends[:, ::-1], ends))


class _Limit(NamedTuple):
    """A limit on what several actuators (ids) do together: ``path[target]``, a range."""

    path: str
    target: int
    motors: NDArray[np.int64]
    what: str
    blocked: bool


def _shared_limits(model: Model) -> list[_Limit]:
    """Limits that joints and tendons set to the forces of all their actuators together."""
    everything, found = np.arange(model.nactuator), []
    at_joint, at_tendon = np.isin(model.actuator_trntype, _AT_JOINT), np.isin(model.actuator_trntype, _TENDON)
    for joint in np.flatnonzero(model.jnt_actfrclimited).tolist():
        # Whether a tendon or a site reaches this joint depends on the way it takes: any of them may.
        motors = everything[~at_joint | (model.actuator_trnid[:, 0] == joint)]
        weight = bool(model.jnt_actgravcomp[joint]) and bool(model.body_gravcomp.any())
        found.append(_Limit("jnt_actfrcrange", joint, motors, f"the joint {model.joint(joint).name}", weight))
    for tendon in np.flatnonzero(model.tendon_actfrclimited).tolist():
        motors = everything[at_tendon & (model.actuator_trnid[:, 0] == tendon)]
        found.append(_Limit("tendon_actfrcrange", tendon, motors, f"the tendon {model.tendon(tendon).name}", False))
    return found


def _instead(prefix: str, limit: _Limit) -> str:
    if limit.blocked:
        return ", gravity compensation among them"
    return ": perturb gear, which is all of them" if prefix else ""


def _write_limit(simulation: Simulation, limit: _Limit, factor: FloatArray) -> None:
    if np.ptp(factor) > _ROUNDING * np.abs(factor).max():
        raise EvaluationError(f"{limit.what} limits the sum of its motors' forces, so they must be scaled alike")
    ranges, now = getattr(simulation.base, limit.path), getattr(simulation.model, limit.path)
    now[limit.target] = _scaled(ranges[limit.target][None], factor[:1])[0]


def _control_range(model: Model, motors: _Motors) -> Iterable[Parameter | Withheld]:
    name, first, count = (
        f"{motors.prefix}ctrlrange",
        model.actuator_ctrladr[motors.ids],
        model.actuator_ctrlnum[motors.ids],
    )
    controls = np.concatenate([np.arange(a, a + n) for a, n in zip(first, count, strict=True)])
    limited = model.actuator_ctrllimited[controls].astype(bool)
    if disabled(model, "CLAMPCTRL"):
        yield Withheld(name, "the model lets controls go beyond their range (option flag)")
    elif limited.all() and len(controls):
        yield _limited_range(model, name, controls, motors.whose)
    elif limited.any():
        yield Withheld(name, f"some of {motors.whose} have no control range to change")


def _limited_range(model: Model, name: str, controls: NDArray[Any], whose: str) -> Parameter:
    def halves(of: Model) -> FloatArray:
        return np.array((of.actuator_ctrlrange[controls, 1] - of.actuator_ctrlrange[controls, 0]) / 2, np.float64)

    def write(simulation: Simulation, values: FloatArray) -> None:
        nominal = simulation.base.actuator_ctrlrange[controls]
        ends = nominal.mean(1, keepdims=True) + values[:, None] * np.array([-1.0, 1.0])
        # A muscle, or whatever else rests at one end of its range, still rests there.
        ends = np.where(nominal[:, :1] == 0.0, values[:, None] * np.array([0.0, 2.0]), ends)
        ends = np.where(nominal[:, 1:] == 0.0, values[:, None] * np.array([-2.0, 0.0]), ends)
        kept = (values == halves(simulation.base))[:, None]
        simulation.model.actuator_ctrlrange[controls] = np.where(kept, nominal, ends)

    meaning = f"largest control that {whose} follows, to either side of the middle; larger actions are clipped"
    if (model.actuator_ctrlrange[controls] == 0.0).any():
        meaning = meaning.replace("the middle", "the middle (or 0, where the range ends there)")
    spec = spec_of(name, Limits("-", 0.0, LARGE), halves(model), meaning)
    return Parameter(spec, ("actuator_ctrlrange",), lambda simulation: halves(simulation.model), write)
