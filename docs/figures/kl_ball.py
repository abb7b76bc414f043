"""Draws docs/figures/kl_ball.png: the KL worst case of a four-point law, and the law that attains it.

python docs/figures/kl_ball.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from offline_robust.divergences import KL

VALUES = torch.tensor([1.0, 2.0, 5.0, 10.0], dtype=torch.float64)
LAW = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
SHOWN = (0.0, 0.1, 0.25, 0.5)
COLOURS = ("#9aa5b1", "#7db3d8", "#2f7fb8", "#0b3c5d")
WIDTH = 0.2


def main() -> None:
    """Computes both panels and writes the file beside this script."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    value_axes, law_axes = figure.subplots(1, 2)

    radii = torch.linspace(0.0, 1.2, 241).tolist()
    worst = [float(KL(radius).worst_case(VALUES, LAW)[0]) for radius in radii]
    mean = float((LAW * VALUES).sum())
    std = float((LAW * (VALUES - mean).square()).sum().sqrt())
    saturation = KL(0.0).saturation_radius(float(LAW[0]))
    value_axes.plot(radii, worst, color=COLOURS[3], linewidth=2, label="worst case")
    early = [radius for radius in radii if radius <= 0.27]
    expansion = [mean - std * math.sqrt(2 * radius) for radius in early]
    value_axes.plot(early, expansion, color=COLOURS[2], linestyle="--", label=r"mean $-$ std $\sqrt{2\delta}$")
    value_axes.axvline(saturation, color=COLOURS[0], linestyle=":", label=r"saturation, $-\log 0.4$")
    value_axes.set(xlabel=r"radius $\delta$ (nats)", ylabel="expectation of V", xlim=(0, 1.2), ylim=(0.8, 3.1))
    value_axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.2, 1.0))

    for place, (radius, colour) in enumerate(zip(SHOWN, COLOURS, strict=True)):
        law = KL(radius).worst_case_weights(VALUES, LAW).tolist()
        at = [index + (place - 1.5) * WIDTH for index in range(len(law))]
        label = "nominal" if radius == 0.0 else rf"$\delta$ = {radius:g}"
        law_axes.bar(at, law, WIDTH, color=colour, label=label)
    law_axes.set_xticks(range(len(VALUES)), [f"{value:g}" for value in VALUES.tolist()])
    law_axes.set(xlabel="V", ylabel="probability")
    law_axes.legend(frameon=False)

    for axes in (value_axes, law_axes):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
