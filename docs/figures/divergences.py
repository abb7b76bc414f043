"""Draws the two pictures of docs/algorithms/divergences.md and prints the table of matched radii there.

python docs/figures/divergences.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from offline_robust.divergences import (
    KL,
    ChiSquare,
    Contamination,
    CressieRead,
    CVaR,
    Divergence,
    TotalVariation,
    Wasserstein1,
)

VALUES = torch.tensor([1.0, 2.0, 5.0, 10.0], dtype=torch.float64)
LAW = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
STEPS = (torch.arange(4.0).unsqueeze(1) - torch.arange(4.0)).abs()
BALLS: dict[str, tuple[Callable[[float], Divergence], float]] = {
    "KL, nats": (KL, 0.9163),
    "Cressie-Read, k = 1.5": (lambda r: CressieRead(1.5, r), 0.775),
    "chi-square (k = 2)": (ChiSquare, 1.5),
    "Cressie-Read, k = 4": (lambda r: CressieRead(4.0, r), 1.219),
    "total variation": (TotalVariation, 0.6),
    "CVaR, 1 / alpha - 1": (lambda r: CVaR(1.0 / (1.0 + r)), 1.5),
    "contamination": (Contamination, 1.0),
    "Wasserstein-1, in bars": (lambda r: Wasserstein1(r, STEPS), 1.0),
}
"""Name and unit of the radius, the ball, and the radius at which it saturates on this law."""

MATCHED = 2.0
"""The worst case that the second picture gives to every ball."""

GREY, PALE, MID, DARK = "#9aa5b1", "#7db3d8", "#2f7fb8", "#0b3c5d"
HERE = Path(__file__).parent


def main() -> None:
    """Writes both files beside this script and prints the matched radii."""
    draw_values()
    draw_laws()


def draw_values() -> None:
    """Value against radius, a panel for each ball."""
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 4, sharey=True)
    for axes, (name, (make, saturation)) in zip(panels.flat, BALLS.items(), strict=True):
        radii = torch.linspace(0.0, 1.2 * saturation, 121).tolist()
        inside = [r for r in radii if r <= 1.0 or not name.startswith("contamination")]
        axes.plot(inside, [value_of(make(r)) for r in inside], color=DARK, linewidth=2)
        axes.axhline(1.0, color=GREY, linewidth=0.8)
        axes.axvline(saturation, color=GREY, linestyle=":")
        axes.set_title(name, fontsize=9)
        axes.set(xlim=(0, 1.2 * saturation), ylim=(0.8, 3.1))
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("radius", fontsize=10)
    figure.supylabel("worst expectation of V", fontsize=10)
    figure.savefig(HERE / "divergences_values.png", dpi=120)


def draw_laws() -> None:
    """The worst law of every ball at the radius where the worst case is the same."""
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 4, sharey=True, sharex=True)
    place = torch.arange(len(VALUES)).tolist()
    for axes, (name, (make, saturation)) in zip(panels.flat, BALLS.items(), strict=True):
        radius = matched_radius(make, saturation)
        worst = make(radius).worst_case_weights(VALUES, LAW).tolist()
        axes.bar([x - 0.2 for x in place], LAW.tolist(), 0.4, color=GREY)
        axes.bar([x + 0.2 for x in place], worst, 0.4, color=MID)
        axes.set_title(f"{name}: {radius:.3f}", fontsize=9)
        axes.set_xticks(place, [f"{value:g}" for value in VALUES.tolist()])
        axes.spines[["top", "right"]].set_visible(False)
        print(f"| {name} | {radius:.4f} | {' '.join(f'{q:.4f}' for q in worst)} |")
    figure.supxlabel("V", fontsize=10)
    figure.supylabel("probability", fontsize=10)
    figure.savefig(HERE / "divergences_laws.png", dpi=120)


def matched_radius(make: Callable[[float], Divergence], saturation: float) -> float:
    """The radius at which the worst case is `MATCHED`, by bisection."""
    low, high = 0.0, saturation
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if value_of(make(middle)) > MATCHED else (low, middle)
    return low


def value_of(ball: Divergence) -> float:
    """The worst case of the picture's law."""
    return float(ball.worst_case(VALUES, LAW)[0])


if __name__ == "__main__":
    main()
