"""Perturbations as data: a parameter, a level, how the level acts, and the registry of known parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from offline_robust.errors import EvaluationError, nearest

Mode = Literal["scale", "absolute", "add"]
"""``scale`` multiplies the nominal value, ``absolute`` replaces it, ``add`` adds to it."""

Scope = Literal["episode", "step"]
"""``episode``: the value holds for the whole episode. ``step`` is reserved for values that change inside one."""

Target = Literal["physics", "observation", "action"]
"""Where a parameter acts: inside the simulation, or on what the policy sees or does."""

ANY = "any"
"""The family of parameters that act outside the simulation and so fit every environment."""


@dataclass(frozen=True)
class ParameterSpec:
    """One quantity that can be perturbed.

    Attributes:
        name: the word used in suites and on the command line.
        env: the environment id it belongs to, or `ANY`.
        nominal: its unperturbed value, in ``unit`` (environment keyword arguments may change it).
        unit: the physical unit; "-" for none.
        low: the smallest value that makes physical sense.
        high: the largest.
        default_mode: how a level acts when a perturbation does not say.
        meaning: one line for tables and help texts.
        target: where it acts.
        attribute: the attribute of the unwrapped Gymnasium environment that holds it (physics only).
        low_open: whether ``low`` itself is excluded.
    """

    name: str
    env: str
    nominal: float
    unit: str
    low: float
    high: float
    default_mode: Mode
    meaning: str
    target: Target = "physics"
    attribute: str | None = None
    low_open: bool = False

    def check(self, value: float) -> None:
        """Refuses a resolved value that is not finite or is outside the physical range.

        Raises:
            EvaluationError: names the parameter, the value and the range.
        """
        below = value <= self.low if self.low_open else value < self.low
        if not math.isfinite(value) or below or value > self.high:
            left = "(" if self.low_open else "["
            unit = "" if self.unit == "-" else f" {self.unit}"
            raise EvaluationError(
                f"{self.name} = {value:g}{unit} is outside its physical range {left}{self.low:g}, {self.high:g}]"
            )


@dataclass(frozen=True)
class Perturbation:
    """One parameter moved to one level.

    Attributes:
        parameter: a name of the registry, see `parameters_for`.
        level: the factor, value or increment, depending on the mode.
        mode: how the level acts; None means the parameter's default until `for_env` fills it in.
        scope: "episode" is the only one evaluation supports so far.
    """

    parameter: str
    level: float
    mode: Mode | None = None
    scope: Scope = "episode"

    def __post_init__(self) -> None:
        if isinstance(self.level, bool) or not isinstance(self.level, int | float):
            raise EvaluationError(f"{self.parameter}: the level {self.level!r} is not a number")
        if not math.isfinite(self.level):
            raise EvaluationError(f"{self.parameter}: the level {self.level} is not finite")
        check_mode(self.mode)
        if self.scope not in get_args(Scope):
            raise EvaluationError(f"unknown scope {self.scope!r}{nearest(str(self.scope), get_args(Scope))}")

    def for_env(self, env_id: str) -> Perturbation:
        """The same perturbation with its mode filled in.

        Raises:
            EvaluationError: the environment has no such parameter, or the scope is not supported yet.
        """
        spec = parameter_spec(self.parameter, env_id)
        if self.scope != "episode":
            raise EvaluationError(f"{self.parameter}: the scope {self.scope!r} is not supported yet; use 'episode'")
        return Perturbation(self.parameter, float(self.level), self.mode or spec.default_mode, self.scope)

    def apply(self, value: float) -> float:
        """The value of the parameter after this perturbation; the mode must be filled in."""
        if self.mode == "scale":
            return value * self.level
        return value + self.level if self.mode == "add" else self.level

    @property
    def label(self) -> str:
        """What tables and figures print: ``length x0.8``, ``observation_noise = 0.1`` or ``gravity +1``."""
        if self.mode == "add":
            return f"{self.parameter} {self.level:+.12g}"
        return f"{self.parameter} {'x' if self.mode == 'scale' else '= '}{self.level:.12g}"


_PENDULUM = "Pendulum-v1"
_UNBOUNDED = 1e9

_REGISTRY: dict[tuple[str, str], ParameterSpec] = {}


def register_parameter(spec: ParameterSpec) -> None:
    """Adds a parameter to the registry, for this process.

    `GymnasiumBatch` sets the named attribute on every copy of the environment, so a parameter that is one plain
    attribute of the unwrapped environment needs nothing else.

    Raises:
        EvaluationError: the environment already has a parameter of that name, or a physics parameter names no
            attribute.
    """
    taken = [(spec.env, spec.name), (ANY, spec.name)]
    if any(key in _REGISTRY for key in taken):
        raise EvaluationError(f"{spec.env} already has a parameter {spec.name!r}")
    if spec.target == "physics" and not spec.attribute:
        raise EvaluationError(f"{spec.name}: a physics parameter needs the attribute that holds it")
    _REGISTRY[spec.env, spec.name] = spec


def parameters_for(env_id: str) -> dict[str, ParameterSpec]:
    """The parameters that can be perturbed in an environment, by name: its own physics, then the noises."""
    own = {spec.name: spec for spec in _REGISTRY.values() if spec.env == env_id}
    return own | {spec.name: spec for spec in _REGISTRY.values() if spec.env == ANY}


def parameter_spec(name: str, env_id: str) -> ParameterSpec:
    """Looks one parameter up.

    Raises:
        EvaluationError: the environment has no such parameter; offers the nearest names.
    """
    known = parameters_for(env_id)
    if name not in known:
        raise EvaluationError(f"{env_id} has no parameter {name!r} to perturb{nearest(name, known)}")
    return known[name]


def resolve(
    perturbations: Iterable[Perturbation], env_id: str, nominal: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The value of every perturbed parameter once all perturbations have acted, in order.

    Args:
        perturbations: with modes filled in; several may act on one parameter, one after the other.
        env_id: the environment.
        nominal: values that differ from the registry's, for instance because of keyword arguments.

    Raises:
        EvaluationError: a parameter is unknown or a value leaves its physical range.
    """
    values: dict[str, float] = {}
    for perturbation in perturbations:
        spec = parameter_spec(perturbation.parameter, env_id)
        start = values.get(spec.name, (nominal or {}).get(spec.name, spec.nominal))
        if perturbation.mode == "scale" and start == 0.0:
            raise EvaluationError(
                f"{spec.name} is nominally 0, scaling does nothing: give its value, as in {spec.name}=absolute@0,0.1"
            )
        values[spec.name] = perturbation.apply(start)
        spec.check(values[spec.name])
    return values


def check_mode(mode: str | None) -> None:
    """Refuses an unknown mode.

    Raises:
        EvaluationError: offers the known ones.
    """
    if mode is not None and mode not in get_args(Mode):
        raise EvaluationError(f"unknown mode {mode!r}{nearest(str(mode), get_args(Mode))}")


def _pendulum(name: str, nominal: float, unit: str, high: float, attribute: str, meaning: str) -> None:
    # Torque and gravity may vanish; a length, mass or time step may not.
    open_at_zero = name in ("length", "mass", "dt")
    register_parameter(
        ParameterSpec(
            name, _PENDULUM, nominal, unit, 0.0, high, "scale", meaning, attribute=attribute, low_open=open_at_zero
        )
    )


_pendulum("length", 1.0, "m", 100.0, "l", "length of the rod")
_pendulum("mass", 1.0, "kg", 1_000.0, "m", "mass of the rod")
_pendulum("gravity", 10.0, "m/s^2", 1_000.0, "g", "gravitational acceleration")
_pendulum("max_torque", 2.0, "N m", 1_000.0, "max_torque", "torque at which the motor saturates")
_pendulum("dt", 0.05, "s", 1.0, "dt", "simulated time per step")
register_parameter(
    ParameterSpec(
        "observation_noise", ANY, 0.0, "units of the observation", 0.0, _UNBOUNDED, "absolute",
        "standard deviation of Gaussian noise added to everything the policy observes", "observation",
    )
)  # fmt: skip
register_parameter(
    ParameterSpec(
        "action_noise", ANY, 0.0, "units of the action", 0.0, _UNBOUNDED, "absolute",
        "standard deviation of Gaussian noise added to the action, then clipped to the action space", "action",
    )
)  # fmt: skip
register_parameter(
    ParameterSpec(
        "random_action", ANY, 0.0, "-", 0.0, 1.0, "absolute",
        "probability, at each step, that a uniformly random action replaces the policy's", "action",
    )
)  # fmt: skip
