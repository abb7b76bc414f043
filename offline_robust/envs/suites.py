"""Suites: named lists of conditions, from YAML (`suite_files`) or the command line's ``length=0.5:1.5:11``."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offline_robust.envs.perturbations import Mode, Perturbation, check_mode
from offline_robust.envs.systems import System
from offline_robust.errors import EvaluationError
from offline_robust.numerals import decimal, whole

NOMINAL_LABEL = "nominal"
MAX_CONDITIONS = 10_000
"""Conditions of one suite, in all its blocks."""
MAX_TOGETHER = 100
"""Perturbations of one condition."""


@dataclass(frozen=True)
class Condition:
    """What is perturbed during one evaluation: perturbations applied in order; none at all is the nominal system."""

    perturbations: tuple[Perturbation, ...] = ()
    nominal: bool = False

    @property
    def label(self) -> str:
        """A name that is unique inside a suite."""
        return ", ".join(p.label for p in self.perturbations) or NOMINAL_LABEL

    @property
    def perturbation(self) -> str:
        """The perturbed parameters, joined by ``+``."""
        return "+".join(p.parameter for p in self.perturbations) or NOMINAL_LABEL

    @property
    def level(self) -> str:
        """The levels, joined by ``;``, in the order of `perturbation`."""
        return ";".join(f"{p.level:.12g}" for p in self.perturbations)

    @property
    def mode(self) -> str:
        """The modes, joined by ``;``, each with its schedule behind it where the level moves: ``scale ramp``."""
        return ";".join(f"{p.mode or ''} {p.schedule}".strip() if p.moves else p.mode or "" for p in self.perturbations)


@dataclass(frozen=True)
class Axis:
    """One parameter and the levels it sweeps.

    Attributes:
        parameter: what is swept.
        levels: its levels.
        mode: how they act.
        alongside: perturbations that hold at every level, applied before it.
        fields: schedule, start and period of the swept perturbation, see `Perturbation`.
    """

    parameter: str
    levels: tuple[float, ...]
    mode: Mode | None = None
    alongside: tuple[Perturbation, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)

    def perturbations(self) -> list[tuple[Perturbation, ...]]:
        """For each level what is perturbed."""
        return [(*self.alongside, Perturbation(self.parameter, v, self.mode, **self.fields)) for v in self.levels]


def sweeps(axes: Iterable[Axis]) -> tuple[Condition, ...]:
    """Every axis swept alone."""
    return tuple(Condition(perturbations) for axis in axes for perturbations in axis.perturbations())


def grid(axes: Sequence[Axis]) -> tuple[Condition, ...]:
    """The Cartesian product of the axes.

    Raises:
        EvaluationError: the grid has more than `MAX_CONDITIONS` conditions.
    """
    if (together := sum(1 + len(axis.alongside) for axis in axes)) > MAX_TOGETHER:
        raise EvaluationError(f"the grid perturbs {together:,} parameters at once, at most {MAX_TOGETHER} are allowed")
    size = math.prod(len(axis.levels) for axis in axes)
    if size > MAX_CONDITIONS:
        raise EvaluationError(f"the grid has {size} conditions, at most {MAX_CONDITIONS} are allowed")
    product = itertools.product(*(axis.perturbations() for axis in axes))
    return tuple(Condition(tuple(itertools.chain(*chosen))) for chosen in product)


@dataclass(frozen=True)
class SuiteBlock:
    """The conditions of a suite for some environments; no ids mean every one."""

    conditions: tuple[Condition, ...]
    env_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A named list of conditions for each of the environments it is made for.

    Attributes:
        name: how it is called in tables.
        parts: the conditions, evaluated in this order, by environment.
        source: where the levels come from.
        inert: whether conditions that change nothing are kept, with a warning, rather than refused.
    """

    name: str
    parts: tuple[SuiteBlock, ...]
    source: str = ""
    inert: bool = False

    @classmethod
    def of(cls, name: str, conditions: Iterable[Condition], **fields: Any) -> Suite:
        """A suite for every environment."""
        return cls(name, (SuiteBlock(tuple(conditions)),), **fields)

    @property
    def env_ids(self) -> tuple[str, ...]:
        """The environments it is made for; empty means every one."""
        return () if any(not part.env_ids for part in self.parts) else tuple(e for p in self.parts for e in p.env_ids)

    def for_system(self, system: System) -> tuple[Condition, ...]:
        """The conditions made ready for one environment.

        Modes are filled in, every level is checked, the conditions that leave each parameter at its nominal value
        are flagged, and a nominal condition is put first if there was none.

        Raises:
            EvaluationError: made for other environments, unknown parameter, level out of range, or one condition
                twice.
        """
        fitting = [part for part in self.parts if not part.env_ids or system.env_id in part.env_ids]
        if not fitting:
            made = ", ".join(self.env_ids)
            raise EvaluationError(f"suite '{self.name}' is made for {made}, not for {system.env_id}")
        conditions = [_ready(condition, system) for part in fitting for condition in part.conditions]
        if not any(condition.nominal for condition in conditions):
            conditions.insert(0, Condition((), nominal=True))
        labels = [condition.label for condition in conditions]
        twice = sorted(label for label, count in Counter(labels).items() if count > 1)
        if twice:
            raise EvaluationError(f"suite '{self.name}' holds the condition '{twice[0]}' twice")
        return tuple(conditions)


def parse_perturb(text: str) -> Axis:
    """Reads one ``--perturb`` argument.

    Forms: ``length=0.5:1.5:11`` (start, stop, count, both ends included), ``length=0.5,1,1.5`` or ``length=0.8``
    (a list), each optionally with the mode in front: ``length=absolute@0.7:1.3:7``.

    Raises:
        EvaluationError: says which part cannot be read.
    """
    name, equals, rest = text.partition("=")
    if not equals or not name.strip() or not rest.strip():
        raise EvaluationError(f"cannot read the perturbation {text!r}: write length=0.5:1.5:11 or length=0.5,1,1.5")
    mode, at, levels = rest.rpartition("@")
    if at:
        check_mode(mode.strip())
    return Axis(name.strip(), parse_levels(levels, text), mode.strip() if at else None)  # type: ignore[arg-type]


def suite_from_perturb(texts: str | Sequence[str], name: str = "custom") -> Suite:
    """The suite of one or several ``--perturb`` arguments; several form a grid.

    Raises:
        EvaluationError: an argument cannot be read, or one parameter is named twice.
    """
    axes = [parse_perturb(text) for text in ([texts] if isinstance(texts, str) else texts)]
    names = [axis.parameter for axis in axes]
    for parameter in names:
        if names.count(parameter) > 1:
            raise EvaluationError(f"--perturb names {parameter!r} twice: list its levels in one argument")
    return Suite.of(name, grid(axes))


def parse_levels(text: str, argument: str) -> tuple[float, ...]:
    """Levels of a text such as ``0.5:1.5:11`` or ``0.5,1,1.5``, which is part of ``argument``."""
    ranged = ":" in text
    parts = text.split(":" if ranged else ",")
    try:
        numbers = [decimal(part) for part in (parts[:2] if ranged else parts)]
        count = whole(parts[2]) if ranged and len(parts) == 3 else 0
    except ValueError as problem:
        raise EvaluationError(f"{argument[:200]!r}: {problem}; write 0.5:1.5:11 or 0.5,1,1.5") from None
    if not ranged:
        return tuple(numbers)
    if len(parts) != 3 or not 1 <= count <= MAX_CONDITIONS:
        raise EvaluationError(f"{argument!r}: a range is start:stop:count with a count from 1 to {MAX_CONDITIONS}")
    with np.errstate(all="ignore"):
        levels = np.linspace(numbers[0], numbers[1], count)
    if not np.isfinite(levels).all():
        raise EvaluationError(f"{argument!r}: a level is not finite")
    # Rounded so that 0.8 is 0.8 and not 0.7999999999999999, in labels and in the physics alike; by digits of the range,
    # so that levels of any size are kept, and the middle of -1:1 is 0.
    digits = 12 - math.ceil(math.log10(max(map(abs, numbers)) or 1.0))
    return tuple(round(float(level), digits) + 0.0 for level in levels)


def _ready(condition: Condition, system: System) -> Condition:
    perturbations = tuple(system.ready(perturbation) for perturbation in condition.perturbations)
    return Condition(perturbations, nominal=system.check(perturbations))
