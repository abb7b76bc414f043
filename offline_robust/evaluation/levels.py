"""Reading the conditions of a results table: swept parameters, grids, and which levels are far from nominal.

Conditions whose levels move inside an episode or from episode to episode (their mode names the schedule, as in "scale
ramp") belong to no sweep and no grid: the level they name is only the far end of what happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_robust.environment import EnvironmentSpec, make_spec
from offline_robust.envs import system
from offline_robust.errors import EvaluationError
from offline_robust.untrusted import MAX_NUMBER, CodeRefused, refuse_code

CONDITION_COLUMNS = ["condition", "nominal", "perturbation", "level", "mode"]

FAR = 0.6
"""A level is far when it is at least this fraction of the way from nominal to the last level on its side."""

QUARTILES = 4


@dataclass(frozen=True)
class Sweep:
    """One parameter swept alone, or with others that hold one level.

    Attributes:
        parameter: its name.
        mode: how its levels act.
        index: (K,) positions of its conditions, by ascending level.
        levels: (K,).
        nominal: the level that leaves the system as it is; NaN where none does or it is not known.
        held: the perturbations that hold at every level, in words; "" for none.
    """

    parameter: str
    mode: str
    index: NDArray[np.intp]
    levels: NDArray[np.float64]
    nominal: float
    held: str = ""

    @property
    def label(self) -> str:
        """What tables and axes call it."""
        return self.parameter + (f", with {self.held}" if self.held else "")


@dataclass(frozen=True)
class Grid:
    """Two parameters crossed, alone or with others that hold one level.

    Attributes:
        parameters: the two names.
        modes: how their levels act.
        levels: the ascending levels of each, (K,) and (M,).
        index: (K, M) positions of the conditions, -1 where the table has none.
        held: the perturbations that hold everywhere, in words; "" for none.
    """

    parameters: tuple[str, str]
    modes: tuple[str, str]
    levels: tuple[NDArray[np.float64], NDArray[np.float64]]
    index: NDArray[np.intp]
    held: str = ""


@dataclass(frozen=True)
class Severity:
    """A sweep whose levels lie in pairs on both sides of nominal, by their distance from it.

    Attributes:
        parameter: its name.
        index: (K,) positions of the conditions other than nominal.
        quartile: (K,) 1 for the nearest quarter of the distances to 4 for the farthest.
        side: (K,) -1 below nominal, 1 above.
    """

    parameter: str
    index: NDArray[np.intp]
    quartile: NDArray[np.int_]
    side: NDArray[np.int_]


Entry = tuple[list[str], list[float], list[str]]
"""Parameters, levels and modes of one condition."""

_NONE: Entry = ([], [], [])


def sweeps(conditions: pd.DataFrame, env: str | EnvironmentSpec) -> list[Sweep]:
    """The parameters that a table's conditions (L rows of `CONDITION_COLUMNS`) sweep, in order of appearance.

    Where the table has an unperturbed condition and a sweep of one parameter alone lacks its nominal level, that
    condition joins the sweep.
    """
    entries = _entries(conditions)
    plain = conditions["nominal"].to_numpy(bool) & np.array([not names for names, _, _ in entries], bool)
    bare = int(np.argmax(plain)) if plain.any() else None
    found = []
    for members in _groups(entries):
        names, _, modes = entries[members[0]]
        varying = _varying(entries, members)
        axis = 0 if len(names) == 1 else varying[0] if len(varying) == 1 else None
        if axis is None:
            continue
        at = {entries[k][1][axis]: k for k in members}
        held = _held(entries[members[0]], axes=[axis])
        nominal = float("nan") if held else nominal_level(names[axis], modes[axis], env)
        if bare is not None and np.isfinite(nominal):
            at.setdefault(nominal, bare)
        ordered = sorted(at)
        if len(ordered) > 1:
            index = np.array([at[level] for level in ordered], np.intp)
            found.append(Sweep(names[axis], modes[axis], index, np.array(ordered), nominal, held))
    return found


def grids(conditions: pd.DataFrame) -> list[Grid]:
    """The grids of two parameters in a table, in order of appearance; up to half of one may be missing."""
    entries = _entries(conditions)
    found = []
    for members in _groups(entries):
        varying = _varying(entries, members)
        if len(varying) != 2 or len(members) < 4:
            continue
        a, b = varying
        axes = [np.unique([entries[k][1][axis] for k in members]) for axis in (a, b)]
        index = np.full((len(axes[0]), len(axes[1])), -1, np.intp)
        for k in members:
            levels = entries[k][1]
            index[np.searchsorted(axes[0], levels[a]), np.searchsorted(axes[1], levels[b])] = k
        if 2 * (index >= 0).sum() < index.size:
            continue  # levels that move together, as along a diagonal, are no grid
        names, _, modes = entries[members[0]]
        held = _held(entries[members[0]], axes=varying)
        found.append(Grid((names[a], names[b]), (modes[a], modes[b]), (axes[0], axes[1]), index, held))
    return found


def severities(conditions: pd.DataFrame, env: str | EnvironmentSpec) -> list[Severity]:
    """The sweeps that scale one parameter alone by pairs of levels, 1 - d and 1 + d, at four distances or more."""
    found = []
    for sweep in sweeps(conditions, env):
        shift = np.round(sweep.levels - 1.0, 9)
        shifted = shift != 0.0
        distances = np.unique(np.abs(shift[shifted]))
        paired = np.array_equal(distances, np.unique(shift[shift > 0])) and 2 * len(distances) == shifted.sum()
        if sweep.mode != "scale" or sweep.held or not paired or len(distances) < QUARTILES:
            continue
        rank = np.searchsorted(distances, np.abs(shift[shifted])) + 1
        quartile = -(-QUARTILES * rank // len(distances))
        found.append(Severity(sweep.parameter, sweep.index[shifted], quartile, np.sign(shift[shifted]).astype(int)))
    return found


def far(conditions: pd.DataFrame, env: str | EnvironmentSpec) -> NDArray[np.bool_]:
    """Which conditions (L,) are far from nominal.

    The distance of a level is measured from the parameter's nominal level, as a fraction of the largest distance on
    the same side in the table; a condition counts by its most distant parameter, and is far from `FAR` on. Levels that
    hold along a whole sweep do not count, and conditions that move are never far.
    """
    entries = _counting(_entries(conditions))
    reach: dict[tuple[str, str, bool], float] = {}
    for names, levels, modes in entries:
        for name, level, mode in zip(names, levels, modes, strict=True):
            distance = level - nominal_level(name, mode, env)
            key = (name, mode, distance > 0)
            reach[key] = max(reach.get(key, 0.0), abs(distance))
    result = np.zeros(len(entries), bool)
    for k, (names, levels, modes) in enumerate(entries):
        for name, level, mode in zip(names, levels, modes, strict=True):
            distance = level - nominal_level(name, mode, env)
            largest = reach[name, mode, distance > 0]
            # A hair of tolerance: 0.3 of 0.5 must not be missed for a rounding error.
            result[k] |= largest > 0 and abs(distance) / largest >= FAR - 1e-9
    result &= ~conditions["nominal"].to_numpy(bool)
    return result


def sides(conditions: pd.DataFrame, env: str | EnvironmentSpec) -> NDArray[np.int_]:
    """On which side (L,) of nominal a condition of one varying parameter lies: -1 below, 1 above; else 0."""
    found = np.zeros(len(conditions), int)
    for k, (names, levels, modes) in enumerate(_counting(_entries(conditions))):
        if len(names) == 1:
            distance = levels[0] - nominal_level(names[0], modes[0], env)
            found[k] = int(np.sign(distance)) if np.isfinite(distance) else 0
    return found


def moving(conditions: pd.DataFrame) -> NDArray[np.bool_]:
    """Which conditions (L,) have a level that moves inside an episode or from episode to episode."""
    return np.array([any(" " in mode for mode in str(modes).split(";")) for modes in conditions["mode"]], bool)


def nominal_level(parameter: str, mode: str, env: str | EnvironmentSpec) -> float:
    """The level that changes nothing: 1 for scaling, 0 for adding, else the nominal value.

    NaN where that is unknown, or where the members of a group differ, so that no one level leaves all as they are.
    """
    if mode in ("scale", "add"):
        return 1.0 if mode == "scale" else 0.0
    try:
        if not isinstance(env, EnvironmentSpec):  # a table may come from anyone
            refuse_code(env)
        of = system(env if isinstance(env, EnvironmentSpec) else make_spec(env))
    except (CodeRefused, EvaluationError):  # a foreign table, or an environment that is not installed here
        return float("nan")
    if parameter in of.nominal:
        values = np.unique(of.nominal[parameter])
        return float(values[0]) if len(values) == 1 else float("nan")
    return of.parameters[parameter].nominal if parameter in of.parameters else float("nan")


def level_text(level: float, mode: str) -> str:
    """A level as labels show it: ``x0.8``, ``+1``, ``= 0.1``."""
    if mode == "add":
        return f"{level:+g}"
    return f"x{level:g}" if mode == "scale" else f"= {level:g}"


def _entries(conditions: pd.DataFrame) -> list[Entry]:
    """What every condition perturbs; nothing where it moves, or where the levels are not numbers (a foreign table)."""
    moves = moving(conditions)
    result = []
    for k, (perturbation, level, mode) in enumerate(
        zip(conditions["perturbation"], conditions["level"], conditions["mode"], strict=True)
    ):
        names, texts, modes = str(perturbation).split("+"), str(level).split(";"), str(mode).split(";")
        try:
            levels = [float(text) for text in texts]
        except ValueError:
            levels = []
        fits = len(names) == len(levels) == len(modes) and all(abs(level) <= MAX_NUMBER for level in levels)
        result.append((names, levels, modes) if fits and not moves[k] else _NONE)
    return result


def _groups(entries: list[Entry]) -> Iterator[list[int]]:
    """Positions of the conditions that perturb the same parameters in the same way, group by group."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for k, (names, _, modes) in enumerate(entries):
        if names:
            groups.setdefault((tuple(names), tuple(modes)), []).append(k)
    yield from groups.values()


def _varying(entries: list[Entry], members: list[int]) -> list[int]:
    """Which of a group's parameters have more than one level."""
    count = len(entries[members[0]][0])
    return [axis for axis in range(count) if len({entries[k][1][axis] for k in members}) > 1]


def _counting(entries: list[Entry]) -> list[Entry]:
    """The conditions without the parameters that hold one level while others of their group vary."""
    kept = list(entries)
    for members in _groups(entries):
        axes = _varying(entries, members)
        for k in members if axes else ():
            names, levels, modes = entries[k]
            kept[k] = ([names[a] for a in axes], [levels[a] for a in axes], [modes[a] for a in axes])
    return kept


def _held(entry: Entry, axes: list[int]) -> str:
    parts = zip(*entry, strict=True)
    return ", ".join(f"{n} {level_text(v, m)}" for k, (n, v, m) in enumerate(parts) if k not in axes)
