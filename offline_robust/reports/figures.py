"""Figures of returns under perturbation: against level, differences, heat maps; and the numbers behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from offline_robust.environment import EnvironmentSpec
from offline_robust.evaluation.levels import Grid, Sweep, grids, nominal_level, sweeps
from offline_robust.evaluation.results import Results
from offline_robust.evaluation.summary import Cube
from offline_robust.reports.analysis import Analysis
from offline_robust.reports.canvas import INK, band, colour, dashes, dress, marker, panels, plain, searched
from offline_robust.reports.text import number

_CROWD = 4
"""Learners above which single trainings are not drawn."""


def level_figure(results: Results | Analysis, narrow: bool = False) -> Figure | None:
    """Mean return against level, one panel per swept parameter, a colour per learner.

    Thick lines are means over trainings with 95 % bands, thin lines single trainings (of up to four learners). Panels
    share their scale of returns. None when nothing is swept.

    Args:
        results: one or several learners.
        narrow: panels under each other, for a small screen.
    """
    known = Analysis.of(results)
    shown = sweeps(known.first.conditions, known.first.environment)
    if not shown:
        return None
    height = 4.0 if len(shown) == 1 else 3.1
    figure, axes = panels(len(shown), height, _names(known), share=True, narrow=narrow)
    bands, shade = known.means.set_index(["learner", "condition"]), band(len(known.cubes))
    for axis, panel in zip(axes, shown, strict=True):
        for name, cube in known.cubes.items():
            k = known.place(name)
            sweep = next((s for s in sweeps(cube.conditions, cube.environment) if _same(s, panel)), None)
            if sweep is None:
                continue
            own = bands.loc[name].loc[list(cube.conditions["condition"].iloc[sweep.index])]
            if len(cube.trainings) > 1 and len(known.cubes) <= _CROWD:
                for training in cube.means[:, sweep.index]:
                    axis.plot(sweep.levels, training, color=colour(k), alpha=0.35, linewidth=0.7)
            axis.fill_between(sweep.levels, own["low"], own["high"], color=colour(k), alpha=shade, linewidth=0)
            axis.plot(sweep.levels, own["value"], linewidth=2.2, zorder=3, **_look(k))
        if np.isfinite(panel.nominal):
            axis.axvline(panel.nominal, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        _name_sweep(axis, panel, "return")
    return figure


def level_data(known: Analysis) -> pd.DataFrame:
    """The numbers of `level_figure`: learner, parameter, mode, held, level, condition, value, low, high, trainings."""
    bands = known.means.set_index(["learner", "condition"])
    parts = []
    for name, cube in known.cubes.items():
        for sweep in sweeps(cube.conditions, cube.environment):
            labels = list(cube.conditions["condition"].iloc[sweep.index])
            own = bands.loc[name].loc[labels].reset_index()
            fixed = {"learner": name, "parameter": sweep.parameter, "mode": sweep.mode, "held": sweep.held}
            own = own.assign(**fixed, level=sweep.levels)
            parts.append(own[[*fixed, "level", "condition", "value", "low", "high", "trainings"]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def difference_figure(results: Results | Analysis, narrow: bool = False) -> Figure | None:
    """Mean return of the first learner minus each other one against level, with 95 % bands; a panel per parameter.

    None when there is one learner only, or nothing is swept. ``narrow`` as for `level_figure`.
    """
    known = Analysis.of(results)
    shown = sweeps(known.first.conditions, known.first.environment)
    if not shown or len(known.cubes) == 1:
        return None
    others = [name for name in known.cubes if name != known.first.learner]
    labels = list(known.first.conditions["condition"])
    tables = {other: known.compare(known.first.learner, other).set_index("condition").loc[labels] for other in others}
    height = 3.5 if len(shown) == 1 else 3.1
    names = [(known.place(other), other) for other in others]
    shade = band(len(others))
    minus = "minus " if narrow else f"{plain(known.first.learner)} − "
    figure, axes = panels(len(shown), height, names, share=True, narrow=narrow, before=minus)
    for axis, panel in zip(axes, shown, strict=True):
        for other, table in tables.items():
            own, k = table.iloc[panel.index], known.place(other)
            axis.fill_between(panel.levels, own["low"], own["high"], color=colour(k), alpha=shade, linewidth=0)
            axis.plot(panel.levels, own["difference"], linewidth=2, **_look(k))
        axis.axhline(0.0, color=INK, linewidth=1.0)
        _name_sweep(axis, panel, "difference of returns")
    return figure


def difference_data(known: Analysis) -> pd.DataFrame:
    """The numbers of `difference_figure`: a, b, parameter, mode, held, level, condition, difference, low, high."""
    first = known.first
    labels = list(first.conditions["condition"])
    parts = []
    for other in (name for name in known.cubes if name != first.learner):
        table = known.compare(first.learner, other).set_index("condition").loc[labels]
        for sweep in sweeps(first.conditions, first.environment):
            fixed = {"a": first.learner, "b": other, "parameter": sweep.parameter, "mode": sweep.mode}
            own = table.iloc[sweep.index].reset_index().assign(**fixed, held=sweep.held, level=sweep.levels)
            parts.append(own[[*fixed, "held", "level", "condition", "difference", "low", "high"]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def heat_figure(results: Results | Analysis, narrow: bool = False) -> Figure | None:
    """Mean return over grids of two parameters, a map per learner and grid on one colour scale; None without a grid.

    Nominal levels are bold, and a frame marks the nominal system. Maps of up to 121 cells have their numbers in them.
    ``narrow`` as for `level_figure`.
    """
    known = Analysis.of(results)
    maps = [(name, cube, found) for name, cube in known.cubes.items() for found in grids(cube.conditions)]
    if not maps:
        return None
    longest = max(max(found.index.shape) for _, _, found in maps)
    columns = 1 if narrow else min(2, len(maps))
    rows = -(-len(maps) // columns)
    width = 4.2 if narrow else 7.4 if columns == 1 else 9.2
    figure = searched(width, (3.4 if longest <= 7 else 4.4) * rows + 0.3)
    axes = [figure.add_subplot(rows, columns, k + 1) for k in range(len(maps))]
    tables = [_grid_means(cube, found) for _, cube, found in maps]
    low, high = min(np.nanmin(t) for t in tables), max(np.nanmax(t) for t in tables)
    image: Any = None
    for axis, (name, cube, found), table in zip(axes, maps, tables, strict=True):
        dress(axis)
        image = axis.imshow(table, origin="lower", aspect="auto", cmap="cividis", vmin=low, vmax=high)
        axis.grid(False)
        _name_grid(axis, found, cube.environment)
        axis.set_title(plain(name) + (f", with {plain(found.held)}" if found.held else ""), fontsize=11)
        if table.size <= 121:
            _write_cells(axis, table, low, high)
        if narrow and longest > 7:
            axis.tick_params(axis="x", labelrotation=60)
    bar = figure.colorbar(image, ax=list(axes), label="mean return", location="bottom" if narrow else "right")
    bar.outline.set_visible(False)
    return figure


def heat_data(known: Analysis) -> pd.DataFrame:
    """The numbers of `heat_figure`: learner, two parameters with their modes and levels, held, value."""
    rows = []
    for name, cube in known.cubes.items():
        for found in grids(cube.conditions):
            for (i, j), value in np.ndenumerate(_grid_means(cube, found)):
                row: dict[str, object] = {"learner": name, "held": found.held}
                for axis, at in enumerate((i, j)):
                    which = "first" if axis == 0 else "second"
                    row |= {which: found.parameters[axis], f"{which}_mode": found.modes[axis]}
                    row |= {f"{which}_level": found.levels[axis][at]}
                rows.append(row | {"value": value})
    return pd.DataFrame(rows)


def _names(known: Analysis) -> list[tuple[int, str]]:
    return [(known.place(name), name) for name in known.cubes]


def _look(place: int) -> dict[str, Any]:
    return {"color": colour(place), "linestyle": dashes(place), "marker": marker(place), "markersize": 4.5}


def _axis_label(parameter: str, mode: str) -> str:
    how = {"scale": " (factor on nominal)", "add": " (added to nominal)"}.get(mode, "")
    return plain(parameter) + how


def _name_sweep(axis: Any, panel: Sweep, quantity: str) -> None:
    axis.set_xlabel(_axis_label(panel.parameter, panel.mode) + (f"\nwith {plain(panel.held)}" if panel.held else ""))
    if axis.yaxis.get_tick_params().get("labelleft", True):
        axis.set_ylabel(quantity)


def _name_grid(axis: Any, found: Grid, env: str | EnvironmentSpec) -> None:
    """Labels the levels, the nominal ones in bold, and frames the cell where both are nominal."""
    places: list[int | None] = []
    for which, parameter, mode, levels in zip("yx", found.parameters, found.modes, found.levels, strict=True):
        nominal = np.flatnonzero(np.isclose(levels, nominal_level(parameter, mode, env)))
        places.append(int(nominal[0]) if len(nominal) else None)
        own = getattr(axis, f"{which}axis")
        own.set_ticks(range(len(levels)), [f"{level:.3g}" for level in levels])
        if places[-1] is not None:
            own.get_ticklabels()[places[-1]].set_fontweight("bold")
        if max(found.index.shape) > 7:
            own.set_tick_params(labelsize=8)
        getattr(axis, f"set_{which}label")(_axis_label(parameter, mode))
    row, column = places
    if row is not None and column is not None and not found.held:
        axis.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=2, zorder=4)
        )


def _write_cells(axis: Any, table: np.ndarray[Any, np.dtype[np.float64]], low: float, high: float) -> None:
    size = 8.5 if table.size <= 36 else 6.5 if table.size <= 64 else 5.5
    for (row, column), value in np.ndenumerate(table):
        dark = high > low and (value - low) / (high - low) < 0.55
        colour = "white" if dark else "black"
        text = number(value) if table.size <= 36 else _short(float(value))
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _same(a: Sweep, b: Sweep) -> bool:
    return (a.parameter, a.mode, a.held) == (b.parameter, b.mode, b.held)


def _short(value: float) -> str:
    """At most four or five characters, for small cells."""
    if abs(value) >= 9_999.5:
        return f"{value / 1000:.3g}k".replace("-", "−")
    return (f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}").replace("-", "−")


def _grid_means(cube: Cube, found: Grid) -> np.ndarray[Any, np.dtype[np.float64]]:
    means: np.ndarray[Any, np.dtype[np.float64]] = cube.returns.mean((0, 2))[found.index]
    means[found.index < 0] = np.nan
    return means
