"""Suites as YAML files, bundled or the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offline_robust.envs.perturbations import Perturbation, check_mode
from offline_robust.envs.suites import (
    MAX_CONDITIONS,
    MAX_TOGETHER,
    Axis,
    Condition,
    Suite,
    SuiteBlock,
    grid,
    parse_levels,
    sweeps,
)
from offline_robust.errors import EvaluationError, nearest
from offline_robust.files import bundled
from offline_robust.plain_yaml import read_yaml

_MAX_BYTES = 1_000_000
_KINDS = ("sweeps", "grid", "conditions")
_SCHEDULE = ("schedule", "start", "period")


def list_suites() -> list[str]:
    """The names of the bundled suites."""
    return sorted(path.stem for path in (bundled("configs") / "suites").glob("*.yaml"))


def load_suite(name: str | Path) -> Suite:
    """Reads a bundled suite by name, or a YAML file by path (anything with a folder or ending in .yaml).

    A file has ``name``, optional ``source`` and ``inert: allowed``, and either one block of conditions or, under
    ``environments``, a list of blocks, each with its ``env_ids``. A block holds any of ``sweeps`` (a list of axes,
    each swept alone), ``grid`` (a list of axes, their product) and ``conditions`` (a list of lists of perturbations),
    and optionally ``env_ids``. An axis has ``parameter``, ``levels`` (a list, or a text such as ``0.5:1.5:11``) and
    optionally ``mode``, ``schedule``, ``start``, ``period`` and ``with`` (perturbations that hold at every level); a
    perturbation has ``parameter``, ``level`` and optionally ``mode``, ``schedule``, ``start`` and ``period``.

    Raises:
        EvaluationError: no such suite, unknown key, or a value of the wrong type.
    """
    text = str(name)
    path = Path(text)
    if path.suffix not in (".yaml", ".yml") and path.name == text:
        path = bundled("configs") / "suites" / f"{text}.yaml"
        if not path.is_file():
            raise EvaluationError(f"no suite {text!r}{nearest(text, list_suites())}")
    content = read_yaml(path, "a suite", _MAX_BYTES, EvaluationError)
    try:
        return _suite(content)
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from None


def _suite(content: Any) -> Suite:
    _keys(content, "the suite", required=("name",), optional=("source", "inert", "environments", "env_ids", *_KINDS))
    blocks = content.get("environments")
    if blocks is None:
        parts = [_part({key: content[key] for key in ("env_ids", *_KINDS) if key in content}, "the suite", 0)]
    else:
        if any(key in content for key in ("env_ids", *_KINDS)):
            raise EvaluationError("give conditions either under environments or beside it, not both")
        parts = []
        for block in _list(blocks, "environments"):
            before = sum(len(part.conditions) for part in parts)
            parts.append(_part(block, "a block of environments", before))
        if not all(part.env_ids for part in parts):
            raise EvaluationError("every block of environments needs its env_ids")
    inert = content.get("inert", "refused")
    if inert not in ("refused", "allowed"):
        raise EvaluationError(f"inert must be refused or allowed, not {inert!r}")
    name, source = (_text(content.get(key, ""), key) for key in ("name", "source"))
    return Suite(name, tuple(parts), source, inert == "allowed")


def _part(block: Any, what: str, before: int) -> SuiteBlock:
    """The conditions of a block, counted as they are made; there are ``before`` of them in the blocks before."""
    _keys(block, what, required=(), optional=("env_ids", *_KINDS))
    env_ids = block.get("env_ids", [])
    if not isinstance(env_ids, list) or not all(isinstance(env_id, str) for env_id in env_ids):
        raise EvaluationError("env_ids must be a list of environment ids")
    if not any(kind in block for kind in _KINDS):
        raise EvaluationError(f"{what} needs at least one of {', '.join(_KINDS)}")
    conditions: list[Condition] = []
    if "sweeps" in block:
        conditions += sweeps(_axes(block["sweeps"], "sweeps"))
    if "grid" in block:
        conditions += grid(_axes(block["grid"], "grid"))
    if "conditions" in block:
        conditions += [Condition(_perturbations(entry)) for entry in _list(block["conditions"], "conditions")]
    if before + len(conditions) > MAX_CONDITIONS:
        raise EvaluationError(
            f"{what} brings it to {before + len(conditions):,} conditions, at most {MAX_CONDITIONS:,} are allowed"
        )
    return SuiteBlock(tuple(conditions), tuple(env_ids))


def _axes(entries: Any, what: str) -> list[Axis]:
    """The axes of a list, up to the one whose levels are too many."""
    axes: list[Axis] = []
    levels = 0
    for entry in _list(entries, what):
        axes.append(_axis(entry))
        levels += len(axes[-1].levels)
        if levels > MAX_CONDITIONS:
            raise EvaluationError(f"{what} have more than {MAX_CONDITIONS:,} levels")
    return axes


def _axis(entry: Any) -> Axis:
    _keys(entry, "an axis", required=("parameter", "levels"), optional=("mode", "with", *_SCHEDULE))
    parameter, levels = _text(entry["parameter"], "parameter"), entry["levels"]
    if isinstance(levels, str):
        numbers = parse_levels(levels, levels)
    else:
        # Perturbation refuses what is not a finite number, and names the parameter.
        numbers = tuple(Perturbation(parameter, level).level for level in _list(levels, f"{parameter}: levels"))
    check_mode(entry.get("mode"))
    alongside = _perturbations(entry["with"]) if "with" in entry else ()
    return Axis(parameter, numbers, entry.get("mode"), alongside, {k: entry[k] for k in _SCHEDULE if k in entry})


def _perturbations(entries: Any) -> tuple[Perturbation, ...]:
    optional = ("mode", *_SCHEDULE)
    found = []
    if not isinstance(entries, list) or len(entries) > MAX_TOGETHER:
        raise EvaluationError(f"each condition must be a list of perturbations, at most {MAX_TOGETHER}")
    for item in entries:
        _keys(item, "a perturbation", required=("parameter", "level"), optional=optional)
        _text(item["parameter"], "parameter")
        found.append(Perturbation(**item))
    return tuple(found)


def _list(entries: Any, what: str) -> list[Any]:
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_CONDITIONS:
        raise EvaluationError(f"{what} must be a list of 1 to {MAX_CONDITIONS} entries")
    return entries


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
