"""Reading the conditions of a results table: swept parameters, grids, and which levels are far from nominal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_robust.envs import system
from offline_robust.errors import EvaluationError

CONDITION_COLUMNS = ["condition", "nominal", "perturbation", "level", "mode"]

FAR = 0.6
"""A level is far when it is at least this fraction of the way from nominal to the last level on its side."""


@dataclass(frozen=True)
class Sweep:
    """One parameter swept alone.

    Attributes:
        parameter: its name.
        mode: how its levels act.
        index: (K,) positions of its conditions, by ascending level.
        levels: (K,).
        nominal: the level that leaves the system as it is.
    """

    parameter: str
    mode: str
    index: NDArray[np.intp]
    levels: NDArray[np.float64]
    nominal: float


@dataclass(frozen=True)
class Grid:
    """Two parameters crossed.

    Attributes:
        parameters: the two names.
        modes: how their levels act.
        levels: the ascending levels of each, (K,) and (M,).
        index: (K, M) positions of the conditions, -1 where the table has none.
    """

    parameters: tuple[str, str]
    modes: tuple[str, str]
    levels: tuple[NDArray[np.float64], NDArray[np.float64]]
    index: NDArray[np.intp]


def sweeps(conditions: pd.DataFrame, env_id: str) -> list[Sweep]:
    """The parameters that a table's conditions (L rows of `CONDITION_COLUMNS`) sweep alone.

    Where the table has an unperturbed condition and a sweep lacks its nominal level, that condition joins the sweep.
    """
    split = _split(conditions)
    bare = next((k for k, (names, _, _) in enumerate(split) if not names), None)
    groups: dict[tuple[str, str], dict[float, int]] = {}
    for k, (names, levels, modes) in enumerate(split):
        if len(names) == 1:
            groups.setdefault((names[0], modes[0]), {})[levels[0]] = k
    found = []
    for (name, mode), at in groups.items():
        nominal = nominal_level(name, mode, env_id)
        if bare is not None and np.isfinite(nominal):
            at.setdefault(nominal, bare)
        ordered = sorted(at)
        if len(ordered) > 1:
            index = np.array([at[level] for level in ordered], np.intp)
            found.append(Sweep(name, mode, index, np.array(ordered), nominal))
    return found


def grid(conditions: pd.DataFrame) -> Grid | None:
    """The grid of two parameters in a table, or None when its conditions form none."""
    pairs = {
        (tuple(levels), k): (tuple(names), tuple(modes))
        for k, (names, levels, modes) in enumerate(_split(conditions))
        if len(names) == 2
    }
    if len(pairs) < 4 or len(set(pairs.values())) != 1:
        return None
    names, modes = next(iter(pairs.values()))
    axes = [np.unique([levels[axis] for levels, _ in pairs]) for axis in (0, 1)]
    index = np.full((len(axes[0]), len(axes[1])), -1, np.intp)
    for levels, k in pairs:
        index[np.searchsorted(axes[0], levels[0]), np.searchsorted(axes[1], levels[1])] = k
    return Grid((names[0], names[1]), (modes[0], modes[1]), (axes[0], axes[1]), index)


def far(conditions: pd.DataFrame, env_id: str) -> NDArray[np.bool_]:
    """Which conditions (L,) are far from nominal.

    The distance of a level is measured from the parameter's nominal level, as a fraction of the largest distance on
    the same side in the table; a condition counts by its most distant parameter, and is far from `FAR` on.
    """
    split = _split(conditions)
    reach: dict[tuple[str, str, bool], float] = {}
    for names, levels, modes in split:
        for name, level, mode in zip(names, levels, modes, strict=True):
            distance = level - nominal_level(name, mode, env_id)
            key = (name, mode, distance > 0)
            reach[key] = max(reach.get(key, 0.0), abs(distance))
    result = np.zeros(len(split), bool)
    for k, (names, levels, modes) in enumerate(split):
        for name, level, mode in zip(names, levels, modes, strict=True):
            distance = level - nominal_level(name, mode, env_id)
            largest = reach[name, mode, distance > 0]
            # A hair of tolerance: 0.3 of 0.5 must not be missed for a rounding error.
            result[k] |= largest > 0 and abs(distance) / largest >= FAR - 1e-9
    result &= ~conditions["nominal"].to_numpy(bool)
    return result


def sides(conditions: pd.DataFrame, env_id: str) -> NDArray[np.int_]:
    """On which side (L,) of nominal a condition of a single parameter lies: -1 below, 1 above, 0 at it or several."""
    found = np.zeros(len(conditions), int)
    for k, (names, levels, modes) in enumerate(_split(conditions)):
        if len(names) == 1:
            found[k] = int(np.sign(levels[0] - nominal_level(names[0], modes[0], env_id)))
    return found


def nominal_level(parameter: str, mode: str, env_id: str) -> float:
    """The level that changes nothing: 1 for scaling, 0 for adding, else the nominal value, or NaN where unknown."""
    if mode in ("scale", "add"):
        return 1.0 if mode == "scale" else 0.0
    try:
        of = system(env_id)
    except EvaluationError:  # a foreign table, or an environment that is not installed here
        return float("nan")
    if parameter in of.nominal:
        return float(np.mean(of.nominal[parameter]))
    return of.parameters[parameter].nominal if parameter in of.parameters else float("nan")


def _split(conditions: pd.DataFrame) -> list[tuple[list[str], list[float], list[str]]]:
    """Parameters, levels and modes of every condition; none where the levels are not numbers (a foreign table)."""
    result = []
    for perturbation, level, mode in zip(
        conditions["perturbation"], conditions["level"], conditions["mode"], strict=True
    ):
        names, texts, modes = str(perturbation).split("+"), str(level).split(";"), str(mode).split(";")
        try:
            levels = [float(text) for text in texts]
        except ValueError:
            levels = []
        fits = len(names) == len(levels) == len(modes) and all(np.isfinite(levels))
        result.append((names, levels, modes) if fits else ([], [], []))
    return result
