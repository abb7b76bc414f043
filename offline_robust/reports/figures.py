"""Figures, as matplotlib objects that touch no global state: return against level, heat maps, learning curves."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter

from offline_robust.evaluation import compare, per_condition
from offline_robust.evaluation.levels import Grid, Sweep, grids, nominal_level, sweeps
from offline_robust.evaluation.results import Results
from offline_robust.evaluation.summary import Cube, cubes
from offline_robust.files import replacing
from offline_robust.reports.records import RunRecord
from offline_robust.reports.text import clean, number

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
"""Okabe and Ito's colours, told apart with every common colour vision; the pale yellow is left out."""

MARKERS = "osD^vPX"
_INK = "#1a1a1a"
_RC: dict[str, Any] = {
    "svg.hashsalt": "offline-robust",
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
}


def level_figure(results: Results, narrow: bool = False) -> Figure | None:
    """Mean return against level, one panel per swept parameter, a colour per learner.

    Thick lines are means over trainings with 95 % bands, thin lines single trainings. Panels share their scale of
    returns. None when nothing is swept.

    Args:
        results: one or several learners.
        narrow: panels under each other, for a small screen.
    """
    known = cubes(results)
    first = next(iter(known.values()))
    panels = sweeps(first.conditions, first.env_id)
    if not panels:
        return None
    figure, axes = _panels(len(panels), 3.7 if len(panels) == 1 else 2.9, share=True, narrow=narrow)
    bands = per_condition(results).set_index(["learner", "condition"])
    for axis, panel in zip(axes, panels, strict=True):
        for k, (name, cube) in enumerate(known.items()):
            sweep = next((s for s in sweeps(cube.conditions, cube.env_id) if _same(s, panel)), None)
            if sweep is None:
                continue
            own = bands.loc[name].loc[list(cube.conditions["condition"].iloc[sweep.index])]
            colour = COLOURS[k % len(COLOURS)]
            if len(cube.trainings) > 1:
                for training in cube.returns.mean(-1)[:, sweep.index]:
                    axis.plot(sweep.levels, training, color=colour, alpha=0.35, linewidth=0.7)
            axis.fill_between(sweep.levels, own["low"], own["high"], color=colour, alpha=0.18, linewidth=0)
            axis.plot(
                sweep.levels, own["value"], color=colour, linewidth=2.2, marker=MARKERS[k % 7], markersize=4.5, zorder=3
            )
        if np.isfinite(panel.nominal):
            axis.axvline(panel.nominal, color="#777777", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        _name_sweep(axis, panel, "return")
    _legend(figure, list(known))
    return figure


def difference_figure(results: Results, narrow: bool = False) -> Figure | None:
    """Mean return of the first learner minus each other one against level, with 95 % bands; a panel per parameter.

    None when there is one learner only, or nothing is swept. ``narrow`` as for `level_figure`.
    """
    known = cubes(results)
    first = next(iter(known.values()))
    panels = sweeps(first.conditions, first.env_id)
    if not panels or len(known) == 1:
        return None
    others = list(known)[1:]
    labels = list(first.conditions["condition"])
    tables = [compare(results, first.learner, other).set_index("condition").loc[labels] for other in others]
    figure, axes = _panels(len(panels), 3.2 if len(panels) == 1 else 2.9, share=True, narrow=narrow)
    for axis, panel in zip(axes, panels, strict=True):
        for k, table in enumerate(tables, start=1):
            own = table.iloc[panel.index]
            colour = COLOURS[k % len(COLOURS)]
            axis.fill_between(panel.levels, own["low"], own["high"], color=colour, alpha=0.18, linewidth=0)
            axis.plot(panel.levels, own["difference"], color=colour, linewidth=2, marker=MARKERS[k % 7], markersize=4.5)
        axis.axhline(0.0, color=_INK, linewidth=1.0)
        _name_sweep(axis, panel, "difference of returns")
    _legend(figure, list(known), only=set(others), minus=first.learner)
    return figure


def heat_figure(results: Results, narrow: bool = False) -> Figure | None:
    """Mean return over grids of two parameters, a map per learner and grid on one colour scale; None without a grid.

    Nominal levels are bold, and a frame marks the nominal system. Maps of up to 121 cells have their numbers in them.
    ``narrow`` as for `level_figure`.
    """
    known = cubes(results)
    maps = [(name, cube, found) for name, cube in known.items() for found in grids(cube.conditions)]
    if not maps:
        return None
    longest = max(max(found.index.shape) for _, _, found in maps)
    figure, axes = _panels(len(maps), 3.4 if longest <= 7 else 4.4, columns=2, narrow=narrow)
    tables = [_grid_means(cube, found) for _, cube, found in maps]
    low, high = min(np.nanmin(t) for t in tables), max(np.nanmax(t) for t in tables)
    image: Any = None
    for axis, (name, cube, found), table in zip(axes, maps, tables, strict=True):
        image = axis.imshow(table, origin="lower", aspect="auto", cmap="cividis", vmin=low, vmax=high)
        axis.grid(False)
        _name_grid(axis, found, cube.env_id)
        axis.set_title(_plain(name) + (f", with {_plain(found.held)}" if found.held else ""), fontsize=11)
        if table.size <= 121:
            _write_cells(axis, table, low, high)
        if narrow and longest > 7:
            axis.tick_params(axis="x", labelrotation=60)
    bar = figure.colorbar(image, ax=list(axes), label="mean return", location="bottom" if narrow else "right")
    bar.outline.set_visible(False)
    return figure


def metric_figure(records: Sequence[RunRecord], learners: Sequence[str], prefixes: Sequence[str]) -> Figure | None:
    """Metrics of the runs against gradient steps, a panel per key, a line per run; None when no run has any."""
    keys = list(dict.fromkeys(k for r in records for k in r.metrics if k.startswith(tuple(prefixes))))[:12]
    keys = [key for key in keys if any(len(r.metrics.get(key, ((), ()))[0]) for r in records)]
    if not keys:
        return None
    figure, axes = _panels(len(keys), height=2.5)
    names = list(dict.fromkeys([*learners, *(r.learner for r in records)]))
    for axis, key in zip(axes, keys, strict=True):
        for record in records:
            if key in record.metrics:
                colour = COLOURS[names.index(record.learner) % len(COLOURS)]
                axis.plot(*record.metrics[key], color=colour, linewidth=1.1, alpha=0.85)
        axis.set_title(_plain(key), fontsize=10)
        axis.set_xlabel("gradient steps")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    shown = {r.learner for r in records if any(key in r.metrics for key in keys)}
    _legend(figure, names, only=shown, markers=False)
    return figure


def svg(figure: Figure, title: str, prefix: str) -> str:
    """The figure as an SVG element to be put into a page: same input, same text; nothing in it points outside.

    Args:
        figure: as made by this module.
        title: what a screen reader says.
        prefix: makes the element's ids unique in the page.
    """
    stream = io.StringIO()
    with rc_context(_RC):
        figure.savefig(stream, format="svg")
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # In a page the namespaces are implied. Without them and the metadata no address and no date is left in the text.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href=", "href=")
    text = re.sub(r'(\sid=")', rf"\g<1>{prefix}-", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    label = clean(title).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()


def save_png(figure: Figure, path: str | Path, dpi: int = 160) -> None:
    """Writes the figure as PNG, atomically."""
    with replacing(path) as aside, rc_context(_RC):
        FigureCanvasAgg(figure).print_png(str(aside), metadata={"Software": None}, pil_kwargs={"dpi": (dpi, dpi)})


def _panels(
    count: int, height: float, columns: int = 3, share: bool = False, narrow: bool = False
) -> tuple[Figure, list[Any]]:
    columns = 1 if narrow else 2 if count == 4 else min(count, columns)
    rows = -(-count // columns)
    width = 4.2 if narrow else 7.4 if columns == 1 else 9.2
    axes: list[Any] = []
    with rc_context(_RC):
        figure = Figure(figsize=(width, height * rows + 0.3), layout="constrained", dpi=160)
        for k in range(count):
            axes.append(figure.add_subplot(rows, columns, k + 1, sharey=axes[0] if axes and share else None))
            if share and k % columns:
                axes[k].tick_params(labelleft=False)
    for axis in axes:
        axis.grid(True, color="#e3e3e3", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=9.5, colors=_INK)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.xaxis.label.set_fontsize(10.5)
        axis.yaxis.label.set_fontsize(10.5)
    return figure, axes


def _legend(
    figure: Figure, names: Sequence[str], only: set[str] | None = None, markers: bool = True, minus: str = ""
) -> None:
    shown = [(k, name) for k, name in enumerate(names) if only is None or name in only]
    handles = [
        Line2D([], [], color=COLOURS[k % len(COLOURS)], linewidth=2.2, marker=MARKERS[k % 7] if markers else "")
        for k, _ in shown
    ]
    before = f"{_plain(minus)} − " if minus else ""
    labels = [before + (_plain(name) or "(no name)") for _, name in shown]
    with rc_context(_RC):
        figure.legend(
            handles, labels, loc="outside upper left", ncols=min(4, len(labels)), frameon=False, fontsize=10.5
        )


def _plain(text: str) -> str:
    """A name as matplotlib prints it literally: a dollar sign would start a formula."""
    return clean(text, 40).replace("\n", " ").replace("$", r"\$")


def _axis_label(parameter: str, mode: str) -> str:
    how = {"scale": " (factor on nominal)", "add": " (added to nominal)"}.get(mode, "")
    return _plain(parameter) + how


def _name_sweep(axis: Any, panel: Sweep, quantity: str) -> None:
    axis.set_xlabel(_axis_label(panel.parameter, panel.mode) + (f"\nwith {_plain(panel.held)}" if panel.held else ""))
    if axis.get_subplotspec().is_first_col():
        axis.set_ylabel(quantity)


def _name_grid(axis: Any, found: Grid, env_id: str) -> None:
    """Labels the levels, the nominal ones in bold, and frames the cell where both are nominal."""
    places: list[int | None] = []
    for which, parameter, mode, levels in zip("yx", found.parameters, found.modes, found.levels, strict=True):
        nominal = np.flatnonzero(np.isclose(levels, nominal_level(parameter, mode, env_id)))
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
