"""Friction of a MuJoCo model, wherever its contacts take it from: geoms, flexes, listed pairs, or one override."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.mujoco_fields import (
    Entries,
    Limits,
    Parameter,
    Simulation,
    Withheld,
    disabled,
    entries,
    spec_of,
)
from offline_robust.envs.mujoco_lengths import Model
from offline_robust.envs.perturbations import FloatArray

_LIMITS = Limits("-", 0.0, 1e3)
_EVERY = "sliding friction of everything that can touch, robot and floor"
_ALONE = (
    "the floor's own sliding friction, as RRLS sets it; a contact takes the larger one of its two sides, so this "
    "does nothing below the robot's own friction: floor_friction is what the feet feel"
)
_UPRIGHT = 0.5
"""Cosine of the steepest slope that still counts as floor, and not as a wall."""


def contact_parameters(model: Model) -> Iterable[Parameter | Withheld]:
    """Sliding friction: of all contacts, and of those with the floor.

    A contact that a ``<contact><pair>`` lists has the pair's own friction, whatever that of its geoms, so pairs belong
    to these parameters like geoms do. Where the model overrides the friction of all contacts, that is the parameter.
    """
    touching, pairs, flexes = np.flatnonzero(_can_collide(model)), np.arange(model.npair), _soft(model)
    if not (len(touching) or len(pairs) or len(flexes)):
        return
    if disabled(model, "CONTACT", "CONSTRAINT"):
        yield from _withheld("the model switches contacts off (option flag)")
        return
    if model.opt.enableflags & int(mujoco.mjtEnableBit.mjENBL_OVERRIDE):
        yield entries(model, "friction", Entries("opt.o_friction", [0, 1]), _LIMITS, _EVERY)
        yield from _withheld("the model overrides the friction of all contacts (o_friction): perturb friction", 1)
        return
    places = [Entries("geom_friction", (touching, 0))] if len(touching) else []
    places += [Entries("flex_friction", (flexes, 0))] if len(flexes) else []
    yield entries(model, "friction", [*places, *_of_pairs(pairs)], _LIMITS, _EVERY)
    yield from _floor(model, touching, len(flexes) > 0)


def _withheld(reason: str, first: int = 0) -> Iterable[Withheld]:
    return (Withheld(name, reason) for name in ("friction", "world_friction", "floor_friction")[first:])


def _of_pairs(pairs: NDArray[np.int64]) -> list[Entries]:
    """Both sliding directions of each pair."""
    return [Entries("pair_friction", (pairs, 0)), Entries("pair_friction", (pairs, 1))] if len(pairs) else []


def _floor(model: Model, touching: NDArray[np.int64], soft: bool) -> Iterable[Parameter | Withheld]:
    ground = np.array([geom for geom in range(model.ngeom) if _is_ground(model, geom)], np.int64)
    pairs = np.flatnonzero(np.isin(model.pair_geom1, ground) | np.isin(model.pair_geom2, ground))
    own = ground[np.isin(ground, touching)]
    if len(own) and not len(pairs):
        yield entries(model, "world_friction", Entries("geom_friction", (own, 0)), _LIMITS, _ALONE)
    elif len(pairs):
        yield Withheld(
            "world_friction",
            "contacts with the floor that a <contact><pair> lists do not look at the floor's own friction: perturb "
            "floor_friction or friction",
        )
    if len(own) and (soft or not _decides_friction_only(model, own, touching)):
        why = "a contact with the floor would take more than its friction from the floor alone (priority, softness, "
        yield Withheld("floor_friction", why + "dimension or rolling friction differ): perturb friction")
    elif len(own) or len(pairs):
        yield _floor_friction(model, own, pairs)


def _is_ground(model: Model, geom: int) -> bool:
    """Whether a geom is a plane, no steeper than a slope, or a height field, fixed in the world."""
    if model.geom_bodyid[geom] != 0:
        return False
    if model.geom_type[geom] == int(mujoco.mjtGeom.mjGEOM_HFIELD):
        return True
    normal = np.zeros(3)
    mujoco.mju_rotVecQuat(normal, np.array([0.0, 0.0, 1.0]), model.geom_quat[geom])
    return bool(model.geom_type[geom] == int(mujoco.mjtGeom.mjGEOM_PLANE) and normal[2] > _UPRIGHT)


def _floor_friction(model: Model, floor: NDArray[np.int64], pairs: NDArray[np.int64]) -> Parameter:
    def read_from(source: Model) -> FloatArray:
        parts = [source.geom_friction[floor, 0], source.pair_friction[pairs, 0], source.pair_friction[pairs, 1]]
        return np.array(np.concatenate(parts), np.float64)

    def write(simulation: Simulation, values: FloatArray) -> None:
        own, listed = values[: len(floor)], values[len(floor) :].reshape(2, -1)
        changed = own != simulation.model.geom_friction[floor, 0]
        simulation.model.geom_friction[floor, 0] = own
        if changed.any():
            simulation.model.geom_priority[floor[changed]] = simulation.base.geom_priority.max() + 1
        simulation.model.pair_friction[pairs, :2] = listed.T

    meaning = (
        "sliding friction of every contact with the floor once it differs from the nominal value; at the nominal value "
        "the robot's own friction counts where it is larger"
    )
    fields = ("geom_friction", "geom_priority", "pair_friction")
    spec = spec_of("floor_friction", _LIMITS, read_from(model), meaning)
    return Parameter(spec, fields, lambda simulation: read_from(simulation.model), write)


def _can_collide(model: Model) -> NDArray[np.bool_]:
    """Geoms (ngeom,) that share a contact type with a geom, or a flex, that moves against them."""
    meets = (model.geom_contype[:, None] & model.geom_conaffinity[None, :]) != 0
    weld = model.body_weldid[model.geom_bodyid]
    touch = (meets | meets.T) & (weld[:, None] != weld[None, :])
    soft = (model.geom_contype[:, None] & model.flex_conaffinity[None, :]) != 0
    soft |= (model.geom_conaffinity[:, None] & model.flex_contype[None, :]) != 0
    return np.asarray(touch.any(axis=1) | soft.any(axis=1), np.bool_)


def _soft(model: Model) -> NDArray[np.int64]:
    """Flexes that can touch something."""
    return np.flatnonzero((model.flex_contype != 0) | (model.flex_conaffinity != 0))


def _decides_friction_only(model: Model, floor: NDArray[np.int64], geoms: NDArray[Any]) -> bool:
    """Whether priority given to the floor changes sliding friction and nothing else.

    Priority makes a geom decide a contact's dimension, softness and other frictions too. That changes nothing if the
    floor has what contacts have now: the largest dimension and frictions of both sides, and the softness of all; and
    if no geom decides alone already.
    """
    soft = np.concatenate([model.geom_solref[geoms], model.geom_solimp[geoms]], axis=1)
    rest = np.concatenate([model.geom_friction[:, 1:], model.geom_condim[:, None]], axis=1)
    alike = (soft == soft[0]).all() and (model.geom_priority[geoms] == model.geom_priority[geoms[0]]).all()
    return bool(alike and (rest[floor].min(0) >= rest[geoms].max(0)).all())
