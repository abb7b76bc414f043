"""What all figures share: colours, panels, legends, and the ways out to SVG and PNG. No global state is touched."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from offline_robust.files import write_bytes
from offline_robust.reports.text import clean

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
"""Okabe and Ito's colours, told apart with every common colour vision; the pale yellow is left out."""

MARKERS = "osD^vPX"
INK = "#1a1a1a"

_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)))
"""Line styles of the learners beyond the first seven, whose colours are those of the first again."""

_LEFT, _RIGHT, _BELOW, _TITLE, _LEGEND_ROW = 0.78, 0.14, 0.62, 0.24, 0.24
"""Margins in inches: for axis labels, at the right, below each panel, above a titled one, a row of the legend."""

_RC: dict[str, Any] = {
    "svg.hashsalt": "offline-robust",
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
}


def colour(place: int) -> str:
    """The colour of the learner at a place in the report."""
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """Its marker."""
    return MARKERS[place % len(MARKERS)]


def dashes(place: int) -> Any:
    """Its line style."""
    return _DASHES[place // len(COLOURS) % len(_DASHES)]


def band(learners: int) -> float:
    """How opaque the bands of so many learners are: many of them lie over each other."""
    return 0.18 if learners <= 4 else 0.09


def panels(
    count: int,
    height: float,
    names: Sequence[tuple[int, str]] = (),
    *,
    columns: int = 3,
    share: bool = False,
    narrow: bool = False,
    titled: bool = False,
    markers: bool = True,
    before: str = "",
) -> tuple[Figure, list[Any]]:
    """A figure of panels in rows, with a legend on top.

    Places are computed, not searched for: a layout engine would draw the whole figure several times to find them.

    Args:
        count: of panels.
        height: of a panel with its labels, inches.
        names: places and names of the learners in the legend.
        columns: at most so many panels side by side.
        share: whether panels share their vertical axis.
        narrow: panels under each other, for a small screen.
        titled: whether panels have titles.
        markers: whether the legend shows markers.
        before: stands before every name in the legend.
    """
    columns = 1 if narrow else 2 if count == 4 else min(count, columns)
    rows = -(-count // columns)
    width = 4.2 if narrow else 7.4 if columns == 1 else 9.2
    labels = [before + (plain(name) or "(no name)") for _, name in names]
    longest = max((len(label) for label in labels), default=0)
    legend_columns = max(1, min(4, len(labels), int((width - 0.4) / (0.62 + 0.092 * longest))))
    top = 0.08 + _LEGEND_ROW * -(-len(labels) // legend_columns)
    total = top + rows * height
    gap = 0.16 if share else 0.62
    own = (width - _LEFT - _RIGHT - gap * (columns - 1)) / columns
    inner = height - _BELOW - (_TITLE if titled else 0.06)
    axes: list[Any] = []
    with rc_context(_RC):
        figure = Figure(figsize=(width, total), dpi=160)
        for k in range(count):
            row, column = divmod(k, columns)
            left = _LEFT + column * (own + gap)
            below = total - top - row * height - height + _BELOW
            place = (left / width, below / total, own / width, inner / total)
            axes.append(figure.add_axes(place, sharey=axes[0] if axes and share else None))
            if share and column:
                axes[k].tick_params(labelleft=False)
        if labels:
            handles = [
                Line2D([], [], color=colour(k), linestyle=dashes(k), linewidth=2.2, marker=marker(k) if markers else "")
                for k, _ in names
            ]
            figure.legend(
                handles,
                labels,
                loc="upper left",
                bbox_to_anchor=((_LEFT - 0.1) / width, 1.0),
                ncols=legend_columns,
                frameon=False,
                fontsize=10.5,
                borderaxespad=0.2,
                labelspacing=0.35,
            )
    for axis in axes:
        dress(axis)
    return figure, axes


def dress(axis: Any) -> None:
    """Grid, ticks and frame of a panel."""
    axis.grid(True, color="#e3e3e3", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9.5, colors=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.xaxis.label.set_fontsize(10.5)
    axis.yaxis.label.set_fontsize(10.5)


def plain(text: str, limit: int = 40) -> str:
    """A name as matplotlib prints it literally: a dollar sign would start a formula."""
    return clean(text, limit).replace("\n", " ").replace("$", r"\$")


def searched(width: float, height: float) -> Figure:
    """An empty figure whose layout matplotlib finds, for what has colour bars."""
    with rc_context(_RC):
        return Figure(figsize=(width, height), layout="constrained", dpi=160)


def svg(figure: Figure, title: str, prefix: str) -> str:
    """The figure as an SVG element to be put into a page: same input, same text; nothing in it points outside.

    Args:
        figure: as made by this package.
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
    stream = io.BytesIO()
    with rc_context(_RC):
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None}, pil_kwargs={"dpi": (dpi, dpi)})
    write_bytes(path, stream.getvalue())
