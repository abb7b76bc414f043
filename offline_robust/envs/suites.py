"""Suites: named lists of conditions, read from YAML or from the command line's ``length=0.5:1.5:11``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from offline_robust.envs.perturbations import Mode, Perturbation, check_mode, parameter_spec, resolve
from offline_robust.errors import EvaluationError, nearest
from offline_robust.files import bundled

NOMINAL_LABEL = "nominal"
MAX_CONDITIONS = 10_000
_MAX_BYTES = 1_000_000


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
        """The modes, joined by ``;``."""
        return ";".join(p.mode or "" for p in self.perturbations)


@dataclass(frozen=True)
class Axis:
    """One parameter and the levels it sweeps."""

    parameter: str
    levels: tuple[float, ...]
    mode: Mode | None = None

    def perturbations(self) -> list[Perturbation]:
        """One perturbation per level."""
        return [Perturbation(self.parameter, level, self.mode) for level in self.levels]


@dataclass(frozen=True)
class Suite:
    """A named list of conditions.

    Attributes:
        name: how it is called in tables.
        conditions: evaluated in this order.
        env_ids: the environments it is made for; empty means every one.
        source: where the levels come from.
    """

    name: str
    conditions: tuple[Condition, ...]
    env_ids: tuple[str, ...] = ()
    source: str = ""

    @classmethod
    def sweeps(cls, name: str, axes: Iterable[Axis], **fields: Any) -> Suite:
        """Every axis is swept alone."""
        return cls(name, tuple(Condition((p,)) for axis in axes for p in axis.perturbations()), **fields)

    @classmethod
    def grid(cls, name: str, axes: Sequence[Axis], **fields: Any) -> Suite:
        """The Cartesian product of the axes.

        Raises:
            EvaluationError: the grid has more than `MAX_CONDITIONS` conditions.
        """
        size = math.prod(len(axis.levels) for axis in axes)
        if size > MAX_CONDITIONS:
            raise EvaluationError(f"the grid has {size} conditions, at most {MAX_CONDITIONS} are allowed")
        product = itertools.product(*(axis.perturbations() for axis in axes))
        return cls(name, tuple(Condition(perturbations) for perturbations in product), **fields)

    def for_env(self, env_id: str, nominal: Mapping[str, float] | None = None) -> Suite:
        """The suite made ready for one environment.

        Modes are filled in, every level is checked, the conditions that leave each parameter at its nominal value
        are flagged, and a nominal condition is put first if there was none.

        Args:
            env_id: the environment.
            nominal: values that differ from the registry's.

        Raises:
            EvaluationError: made for other environments, unknown parameter, level out of range, or one condition
                twice.
        """
        if self.env_ids and env_id not in self.env_ids:
            raise EvaluationError(f"suite '{self.name}' is made for {', '.join(self.env_ids)}, not for {env_id}")
        conditions = [_ready(condition, env_id, nominal) for condition in self.conditions]
        if not any(condition.nominal for condition in conditions):
            conditions.insert(0, Condition((), nominal=True))
        labels = [condition.label for condition in conditions]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise EvaluationError(f"suite '{self.name}' holds the condition '{twice[0]}' twice")
        return replace(self, conditions=tuple(conditions))


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
    return Axis(name.strip(), _levels(levels, text), mode.strip() if at else None)  # type: ignore[arg-type]


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
    return Suite.grid(name, axes)


def list_suites() -> list[str]:
    """The names of the bundled suites."""
    return sorted(path.stem for path in (bundled("configs") / "suites").glob("*.yaml"))


def load_suite(name: str | Path) -> Suite:
    """Reads a bundled suite by name, or a YAML file by path (anything with a folder or ending in .yaml).

    A file has ``name``, optional ``env_ids`` and ``source``, and exactly one of ``sweeps`` (a list of axes, each
    swept alone), ``grid`` (their product) or ``conditions`` (a list of lists of perturbations). An axis has
    ``parameter``, ``levels`` (a list, or a text such as ``0.5:1.5:11``) and optionally ``mode``; a perturbation has
    ``parameter``, ``level`` and optionally ``mode``.

    Raises:
        EvaluationError: no such suite, unknown key, or a value of the wrong type.
    """
    text = str(name)
    path = Path(text)
    if path.suffix not in (".yaml", ".yml") and path.name == text:
        path = bundled("configs") / "suites" / f"{text}.yaml"
        if not path.is_file():
            raise EvaluationError(f"no suite {text!r}{nearest(text, list_suites())}")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise EvaluationError(f"{path}: larger than {_MAX_BYTES} bytes, not a suite")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: cannot read the suite ({error})") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise EvaluationError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    try:
        return _suite(content)
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from None


def _suite(content: Any) -> Suite:
    _keys(content, "the suite", required=("name",), optional=("env_ids", "source", "sweeps", "grid", "conditions"))
    kinds = [kind for kind in ("sweeps", "grid", "conditions") if kind in content]
    if len(kinds) != 1:
        raise EvaluationError(f"give exactly one of sweeps, grid or conditions (got {', '.join(kinds) or 'none'})")
    env_ids = content.get("env_ids", [])
    if not isinstance(env_ids, list) or not all(isinstance(env_id, str) for env_id in env_ids):
        raise EvaluationError("env_ids must be a list of environment ids")
    name, source = (_text(content.get(key, ""), key) for key in ("name", "source"))
    fields: dict[str, Any] = {"env_ids": tuple(env_ids), "source": source}
    entries = content[kinds[0]]
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_CONDITIONS:
        raise EvaluationError(f"{kinds[0]} must be a list of 1 to {MAX_CONDITIONS} entries")
    if kinds[0] == "conditions":
        return Suite(name, tuple(Condition(_perturbations(entry)) for entry in entries), **fields)
    axes = [_axis(entry) for entry in entries]
    return Suite.grid(name, axes, **fields) if kinds[0] == "grid" else Suite.sweeps(name, axes, **fields)


def _axis(entry: Any) -> Axis:
    _keys(entry, "an axis", required=("parameter", "levels"), optional=("mode",))
    parameter, levels = _text(entry["parameter"], "parameter"), entry["levels"]
    if isinstance(levels, str):
        numbers = _levels(levels, levels)
    elif isinstance(levels, list) and 0 < len(levels) <= MAX_CONDITIONS:
        # Perturbation refuses what is not a finite number, and names the parameter.
        numbers = tuple(Perturbation(parameter, level).level for level in levels)
    else:
        raise EvaluationError(f"{parameter}: levels must be a list of numbers or a text such as '0.5:1.5:11'")
    check_mode(entry.get("mode"))
    return Axis(parameter, numbers, entry.get("mode"))


def _perturbations(entry: Any) -> tuple[Perturbation, ...]:
    if not isinstance(entry, list):
        raise EvaluationError("each condition must be a list of perturbations")
    for item in entry:
        _keys(item, "a perturbation", required=("parameter", "level"), optional=("mode", "scope"))
    return tuple(
        Perturbation(
            _text(item["parameter"], "parameter"), item["level"], item.get("mode"), item.get("scope", "episode")
        )
        for item in entry
    )


def _keys(content: Any, what: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise EvaluationError(f"{what} must be a mapping with the keys {', '.join(required)}")
    for key in content:
        if key not in required + optional:
            raise EvaluationError(f"{what} has an unknown key {key!r}{nearest(str(key), required + optional)}")
    for key in required:
        if key not in content:
            raise EvaluationError(f"{what} lacks the key {key!r}")


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or len(value) > 2_000:
        raise EvaluationError(f"{key} must be a short text")
    return value


def _levels(text: str, whole: str) -> tuple[float, ...]:
    ranged = ":" in text
    parts = text.split(":" if ranged else ",")
    try:
        numbers = [float(part) for part in (parts[:2] if ranged else parts)]
        count = int(parts[2]) if ranged and len(parts) == 3 else 0
    except ValueError:
        raise EvaluationError(f"{whole!r}: a level is not a number; write 0.5:1.5:11 or 0.5,1,1.5") from None
    if not all(math.isfinite(number) for number in numbers):
        raise EvaluationError(f"{whole!r}: a level is not finite")
    if not ranged:
        return tuple(numbers)
    if len(parts) != 3 or not 1 <= count <= MAX_CONDITIONS:
        raise EvaluationError(f"{whole!r}: a range is start:stop:count with a count from 1 to {MAX_CONDITIONS}")
    # Rounded so that 0.8 is 0.8 and not 0.7999999999999999, in labels and in the physics alike.
    return tuple(round(float(level), 6) for level in np.linspace(numbers[0], numbers[1], count))


def _ready(condition: Condition, env_id: str, nominal: Mapping[str, float] | None) -> Condition:
    perturbations = tuple(perturbation.for_env(env_id) for perturbation in condition.perturbations)
    values = resolve(perturbations, env_id, nominal)
    untouched = all(
        value == (nominal or {}).get(name, parameter_spec(name, env_id).nominal) for name, value in values.items()
    )
    return Condition(perturbations, nominal=untouched)
