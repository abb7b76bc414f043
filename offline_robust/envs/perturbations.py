"""Perturbations as data: a parameter, a level, how the level acts and how it moves inside an episode."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from offline_robust.errors import EvaluationError, nearest

Mode = Literal["scale", "absolute", "add"]
"""``scale`` multiplies the nominal value, ``absolute`` replaces it, ``add`` adds to it."""

Schedule = Literal["constant", "ramp", "cycle", "walk", "uniform", "redraw"]
"""How the level moves. ``constant``: not at all. Between ``start`` and ``level`` inside the episode: ``ramp`` linearly
over ``period`` steps, then it stays; ``cycle`` along a cosine and back, every ``period`` steps; ``walk`` as a reflected
Gaussian random walk that spreads over the range in about ``period`` steps; ``redraw`` uniformly anew every ``period``
steps. ``uniform``: one uniform draw for the whole episode."""

Target = Literal["physics", "observation", "action"]
"""Where a parameter acts: inside the simulation, or on what the policy sees or does."""

ANY = "any"
"""The family of parameters that act outside the simulation and so fit every environment."""

FloatArray = NDArray[np.float64]

_NEUTRAL = {"scale": 1.0, "add": 0.0}
_MAX_PERIOD = 1_000_000


@dataclass(frozen=True)
class ParameterSpec:
    """One quantity that can be perturbed.

    Attributes:
        name: the word used in suites and on the command line.
        unit: the physical unit; "-" for none.
        low: the smallest value that makes physical sense.
        high: the largest.
        default_mode: how a level acts when a perturbation does not say.
        meaning: one line for tables and help texts.
        target: where it acts.
        low_open: whether ``low`` itself is excluded.
        structural: the model is built again for it, before anything else acts; it cannot change inside an episode.
        nominal: its unperturbed value where no simulation can be asked (noise and delays).
        env: the environment id it belongs to, or `ANY`; "" where the simulation itself offers it.
        attributes: the attributes of the unwrapped Gymnasium environment that hold it (registered physics only).
        part: the first dimension and the one after the last, where it acts on a named part of the observation alone.
    """

    name: str
    unit: str
    low: float
    high: float
    default_mode: Mode
    meaning: str
    target: Target = "physics"
    low_open: bool = False
    structural: bool = False
    nominal: float = 0.0
    env: str = ""
    attributes: tuple[str, ...] = ()
    part: tuple[int, int] | None = None

    def check(self, values: FloatArray | float) -> None:
        """Refuses values that are not finite or are outside the physical range.

        Raises:
            EvaluationError: names the parameter, the first such value and the range.
        """
        array = np.atleast_1d(np.asarray(values, np.float64))
        low = array <= self.low if self.low_open else array < self.low
        wrong = array[~np.isfinite(array) | low | (array > self.high)]
        if len(wrong):
            left = "(" if self.low_open else "["
            unit = "" if self.unit == "-" else f" {self.unit}"
            raise EvaluationError(
                f"{self.name} = {wrong[0]:g}{unit} is outside its physical range {left}{self.low:g}, {self.high:g}]"
            )


@dataclass(frozen=True)
class Perturbation:
    """One parameter moved to one level.

    Attributes:
        parameter: a name that the environment offers, see `offline_robust.envs.System`.
        level: the factor, value or increment, depending on the mode; where a schedule moves, its far end.
        mode: how the level acts; None means the parameter's default until `System.ready` fills it in.
        schedule: whether and how the level moves inside an episode.
        start: the level a schedule begins at, or the other end of its range; None: where the parameter is nominal.
        period: steps of the schedule; None: the environment's time limit (``redraw``: 1).
    """

    parameter: str
    level: float
    mode: Mode | None = None
    schedule: Schedule = "constant"
    start: float | None = None
    period: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("level", self.level), ("start", 0.0 if self.start is None else self.start)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise EvaluationError(f"{self.parameter}: the {name} {value!r} is not a number")
            if not -sys.float_info.max <= value <= sys.float_info.max:  # a huge int is no float at all
                raise EvaluationError(f"{self.parameter}: the {name} {f'{value}'[:20]} is not finite")
        check_mode(self.mode)
        if self.schedule not in get_args(Schedule):
            raise EvaluationError(
                f"unknown schedule {self.schedule!r}{nearest(str(self.schedule), get_args(Schedule))}"
            )
        if self.schedule == "constant" and (self.start is not None or self.period is not None):
            raise EvaluationError(f"{self.parameter}: start and period need a schedule")
        if self.period is not None and (type(self.period) is not int or not 1 <= self.period <= _MAX_PERIOD):
            raise EvaluationError(f"{self.parameter}: period must be a whole number of steps from 1 to {_MAX_PERIOD:,}")

    def apply(self, values: FloatArray, level: float | None = None) -> FloatArray:
        """The parameter's values after this perturbation, at another level if given; the mode must be filled in."""
        level = self.level if level is None else level
        if self.mode == "scale":
            return values * level
        return values + level if self.mode == "add" else np.full_like(values, level)

    def neutral(self, nominal: FloatArray) -> float:
        """The level at which the parameter keeps its nominal value.

        Raises:
            EvaluationError: several nominal values, and a mode in which no one level stands for all.
        """
        if self.mode not in _NEUTRAL and len(np.unique(nominal)) > 1:
            raise EvaluationError(
                f"{self.parameter}: its nominal values differ, so an absolute level cannot start there: give start"
            )
        return _NEUTRAL.get(self.mode or "", float(nominal[0]))

    @property
    def moves(self) -> bool:
        """Whether the value changes inside an episode, or from episode to episode."""
        return self.schedule != "constant"

    @property
    def label(self) -> str:
        """What tables print: ``length x0.8``, ``observation_noise = 0.1``, ``gravity +1``, ``mass x1 to x2, ramp``."""

        def show(level: float) -> str:
            if self.mode == "add":
                return f"{level:+.12g}"
            return f"{'x' if self.mode == 'scale' else '= '}{level:.12g}"

        if not self.moves:
            return f"{self.parameter} {show(self.level)}"
        start = "" if self.start is None else f"{show(self.start)} "
        period = "" if self.period is None else f" over {self.period}"
        return f"{self.parameter} {start}to {show(self.level)}, {self.schedule}{period}"


_REGISTRY: dict[tuple[str, str], ParameterSpec] = {}


def register_parameter(spec: ParameterSpec) -> None:
    """Adds a parameter to the registry, for this process.

    `GymnasiumBatch` sets the named attributes on every copy of the environment, so a parameter that is one plain
    attribute of the unwrapped environment, or several that move together, needs nothing else.

    Raises:
        EvaluationError: the environment already has a parameter of that name, or a physics parameter names no
            attribute.
    """
    if (spec.env, spec.name) in _REGISTRY or (ANY, spec.name) in _REGISTRY:
        raise EvaluationError(f"{spec.env} already has a parameter {spec.name!r}")
    if spec.target == "physics" and not spec.attributes:
        raise EvaluationError(f"{spec.name}: a physics parameter needs the attributes that hold it")
    _REGISTRY[spec.env, spec.name] = spec
    for listener in _ON_CHANGE:
        listener()


_ON_CHANGE: list[Callable[[], None]] = []
"""Called after a registration: what was learned about environments before may lack the new parameter."""


def registered(env_id: str) -> dict[str, ParameterSpec]:
    """The registered parameters of an environment, or of `ANY`, by name."""
    return {spec.name: spec for spec in _REGISTRY.values() if spec.env == env_id}


def check_mode(mode: str | None) -> None:
    """Refuses an unknown mode.

    Raises:
        EvaluationError: offers the known ones.
    """
    if mode is not None and mode not in get_args(Mode):
        raise EvaluationError(f"unknown mode {mode!r}{nearest(str(mode), get_args(Mode))}")


def with_mode(perturbation: Perturbation, specs: Mapping[str, ParameterSpec]) -> Perturbation:
    """The same perturbation with its mode filled in."""
    mode: Any = perturbation.mode or specs[perturbation.parameter].default_mode
    return replace(perturbation, mode=mode, level=float(perturbation.level))
