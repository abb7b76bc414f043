"""What a perturbable number of a compiled MuJoCo model is: where it lies, how it is read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from offline_robust.envs.mujoco_lengths import Model
from offline_robust.envs.perturbations import FloatArray, Mode, ParameterSpec

LARGE = 1e6


@dataclass
class Simulation:
    """A model being perturbed.

    Attributes:
        base: the model before any of these parameters is written; never changed.
        model: its perturbed copy.
        pushes: forces (nbody, 3) on the bodies, in N, in the world's frame.
        strengths: of every actuator (nactuator,) as `gear` counts it, where the model has no one number for it.
        written: paths of the fields of ``model`` that may differ from those of ``base``.
        scratch: a `mujoco.MjData` of ``model`` to compute with, once there is one.
    """

    base: Model
    model: Model
    pushes: FloatArray
    strengths: FloatArray
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


class Withheld(NamedTuple):
    """A parameter that this model does not get, since it would not do all that its name says, and why."""

    name: str
    reason: str


class Limits(NamedTuple):
    """Unit and physical range of a parameter, and its mode where the nominal value does not decide it."""

    unit: str
    low: float
    high: float
    low_open: bool = False
    mode: Mode | None = None


def spec_of(name: str, limits: Limits, nominal: FloatArray, meaning: str) -> ParameterSpec:
    """The description of a parameter; what is nominally 0 cannot be scaled, so its levels are absolute by default."""
    mode: Mode = limits.mode or ("scale" if nominal.any() else "absolute")
    low, high, largest = limits.low, limits.high, float(np.abs(nominal).max(initial=0.0))
    if largest > high / 2:
        # A model may hold figures beyond what we call physical: Fetch's base has a damping of 1e7.
        low, high = (-10 * largest if low < 0.0 else low), 10 * largest
    return ParameterSpec(name, limits.unit, low, high, mode, meaning, low_open=limits.low_open)


class Entries(NamedTuple):
    """Plain entries of one array of the model: ``model.path[rows]``."""

    path: str
    rows: Any


def entries(
    model: Model, name: str, places: Entries | list[Entries], limits: Limits, meaning: str, sign: int = 1
) -> Parameter:
    """A parameter that is plain entries of one or several arrays, one after the other, each (k,)."""
    parts = [(attrgetter(path), index) for path, index in (places if isinstance(places, list) else [places])]

    def read_from(source: Model) -> FloatArray:
        found = [np.array(get(source)[index], np.float64) for get, index in parts]
        # Adding 0 turns the -0 of a flipped zero into 0.
        return sign * np.concatenate([np.atleast_1d(values) for values in found]) + 0.0

    def write(simulation: Simulation, values: FloatArray) -> None:
        left = sign * values
        for get, index in parts:
            size = np.size(get(simulation.model)[index])
            get(simulation.model)[index] = left[:size]
            left = left[size:]

    fields = tuple(dict.fromkeys(path for path, _ in (places if isinstance(places, list) else [places])))
    return Parameter(
        spec_of(name, limits, read_from(model), meaning), fields, lambda simulation: read_from(simulation.model), write
    )


def disabled(model: Model, *flags: str) -> bool:
    """Whether the model's options switch one of these parts of the physics off (``GRAVITY``, ``CONTACT``, ...)."""
    return any(model.opt.disableflags & int(getattr(mujoco.mjtDisableBit, f"mjDSBL_{flag}")) for flag in flags)


def factors(values: FloatArray, nominal: FloatArray) -> NDArray[np.float64]:
    """``values`` over ``nominal``, and 1 where both are 0."""
    safe = np.where(nominal == 0.0, 1.0, nominal)
    return np.asarray(np.where(values == nominal, 1.0, values / safe))
