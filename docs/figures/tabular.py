"""Draws the pictures of docs/algorithms/tabular.md and prints the tables there.

python docs/figures/tabular.py [policies] [values] [learning] [put] [samples]

All five without arguments; `learning` and `samples` take minutes and need the extra `tabular`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from offline_robust.divergences import KL, Contamination, CressieRead
from offline_robust.tabular import (
    FiniteMDP,
    Sampling,
    american_put,
    cliffwalking,
    contamination_q_learning,
    drq,
    expected_returns,
    multilevel_drq,
    put_prices,
    q_learning,
    robust_value_iteration,
    sample_model,
)

GREY, PALE, MID, DARK, RED = "#9aa5b1", "#7db3d8", "#2f7fb8", "#0b3c5d", "#c8553d"
HERE = Path(__file__).parent
START = 8
WINDS = (0.5, 0.6, 0.7, 0.8, 0.9)
LEARNED = (
    CressieRead(2, 0.5),
    CressieRead(2, 1.0),
    CressieRead(2, 1.5),
    CressieRead(4, 0.5),
    CressieRead(4, 1.0),
    KL(0.1),
    KL(0.5),
)
SEEDS = range(10)


def solved(mdp: FiniteMDP, ball=None, **options):
    """Exact robust values."""
    return robust_value_iteration(mdp.transitions, mdp.rewards, mdp.discount, ball, terminal=mdp.terminal, **options)


def figure_of(rows: int, columns: int, size: tuple[float, float], **options):
    """A figure and its panels."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def draw_policies() -> None:
    """Arrows over Cliffwalking, values as shades, and what the policies earn under more wind."""
    mdp = cliffwalking()
    balls = {
        "not robust": None,
        "k = 2, rho 0.1": CressieRead(2, 0.1),
        "k = 2, rho 0.5": CressieRead(2, 0.5),
        "k = 2, rho 1": CressieRead(2, 1.0),
    }
    figure, panels = figure_of(1, 4, (11.0, 3.0))
    for axes, (name, ball) in zip(panels[0], balls.items(), strict=True):
        found = solved(mdp, ball)
        axes.imshow(found.v[:16].reshape(4, 4), cmap="Blues", vmin=-10, vmax=6)
        axes.axhspan(2.5, 3.5, color="#1d6fa5", alpha=0.25)
        for cell in range(16):
            row, column = divmod(cell, 4)
            if cell == 11:
                axes.text(column, row, "goal", ha="center", va="center", fontsize=8)
                continue
            down, right = ((-1, 0), (0, 1), (1, 0), (0, -1))[found.policy[cell]]
            axes.annotate(
                "",
                (column + 0.3 * right, row + 0.3 * down),
                (column - 0.3 * right, row - 0.3 * down),
                arrowprops={"arrowstyle": "->", "color": RED if cell == START else "black", "lw": 1.5},
            )
        axes.set_title(f"{name}: V(start) {found.v[START]:.2f}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        game = [cliffwalking(wind, reward="entering") for wind in WINDS]
        print(f"| {name} |", " | ".join(f"{expected_returns(g, found.policy).start_return:.3f}" for g in game), "|")
    figure.savefig(HERE / "tabular_policies.png", dpi=120)


def draw_values() -> None:
    """V(start) against the radius, and the gain of going up over going right."""
    mdp, radii = cliffwalking(), np.append(np.linspace(0.0, 0.3, 16), np.linspace(0.35, 4.0, 24))
    figure, panels = figure_of(1, 2, (9.0, 3.2))
    families = {
        "KL": (KL, GREY),
        "k = 1.5": (lambda r: CressieRead(1.5, r), PALE),
        "k = 2": (lambda r: CressieRead(2, r), MID),
        "k = 4": (lambda r: CressieRead(4, r), DARK),
    }
    for name, (make, colour) in families.items():
        q = np.stack([solved(mdp, make(radius)).q[START] for radius in radii])
        panels[0, 0].plot(radii, q.max(1), color=colour, label=name)
        panels[0, 1].plot(radii, q[:, 0] - q[:, 1], color=colour)
        first = radii[(q[:, 0] > q[:, 1]).argmax()]
        print(f"{name}: goes up from about rho {first:.2f}; V(start) at rho 4: {q[-1].max():.4f}")
    panels[0, 0].set(xlabel="rho", ylabel="robust V(start)")
    panels[0, 1].set(xlabel="rho", ylabel="Q(up) - Q(right) at the start", xlim=(0, 2))
    panels[0, 1].axhline(0.0, color="black", linewidth=0.6)
    panels[0, 0].legend(frameon=False, fontsize=8)
    for axes in panels[0]:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "tabular_values.png", dpi=120)


def draw_learning() -> None:
    """DRQ against the exact value: 3e6 steps of one trajectory, 2e5 synchronous sweeps, ten seeds."""
    mdp = cliffwalking()
    began = time.process_time()
    walked = drq(mdp, LEARNED, 3_000_000, seeds=SEEDS, sampling=Sampling(record=30_000))
    print(f"one trajectory: {len(LEARNED)} balls x 10 seeds x 3e6 steps in {time.process_time() - began:.0f} s")
    began = time.process_time()
    swept = drq(mdp, LEARNED, 200_000, seeds=SEEDS, sampling=Sampling("synchronous"))
    print(f"synchronous: {len(LEARNED)} balls x 10 seeds x 2e5 sweeps in {time.process_time() - began:.0f} s")
    plain = q_learning(mdp, 3_000_000, seeds=SEEDS, sampling=Sampling(record=30_000))
    figure, panels = figure_of(2, 4, (12.0, 5.2))
    rows = [(None, plain.curve[0], None), *zip(LEARNED, walked.curve, swept.v, strict=True)]
    for axes, (ball, curve, sweeps) in zip(panels.flat, rows, strict=True):
        exact, along = solved(mdp, ball).v[START], curve[:, :, START]
        mean, spread = along.mean(0), along.std(0)
        axes.fill_between(plain.samples, mean - spread, mean + spread, color=PALE, alpha=0.6)
        axes.plot(plain.samples, mean, color=DARK)
        axes.axhline(exact, color=RED, linestyle="--")
        axes.set_title(str(ball or "Q-learning"), fontsize=9)
        axes.set(ylim=(exact - 1.5, exact + 1.5))
        axes.spines[["top", "right"]].set_visible(False)
        name, last = ball or "Q-learning", along[:, -1]
        synchronous = ""
        if sweeps is not None:
            at = sweeps[:, START]
            synchronous = f"{at.mean():.3f} +- {at.std():.3f} | {abs(at - exact).max():.3f}"
        near = f"{last.mean():.3f} +- {last.std():.3f} | {abs(last - exact).max():.3f}"
        print(f"| {name} | {exact:.3f} | {synchronous or '- | -'} | {near} |")
    figure.supxlabel("steps of one trajectory", fontsize=9)
    figure.supylabel("V(start): mean and one std of 10 seeds", fontsize=9)
    figure.savefig(HERE / "tabular_learning.png", dpi=120)
    share = Contamination(0.2)
    found = contamination_q_learning(mdp, [share], 3_000_000, seeds=SEEDS)
    exact = solved(mdp, share, everywhere=True).v[START]
    print(f"R-contamination 0.2: exact {exact:.3f}, one trajectory {found.v[0, :, START].mean():.3f}")
    returns = [expected_returns(cliffwalking(w, reward="entering"), found.policy[0, 0]).start_return for w in WINDS]
    print("its policy (first seed) earns", " ".join(f"{x:.3f}" for x in returns))


def draw_put() -> None:
    """Where to exercise, by the radius, and what stage policies earn when the price rises more or less often."""
    mdp, prices = american_put(), put_prices()
    radii = np.linspace(0.0, 0.5, 26)
    figure, panels = figure_of(1, 2, (9.0, 3.2))
    families = {
        "KL": (KL, GREY),
        "k = 2": (lambda r: CressieRead(2, r), MID),
        "k = 4": (lambda r: CressieRead(4, r), DARK),
    }
    for name, (make, colour) in families.items():
        edge = [prices[solved(mdp, make(radius), tolerance=1e-8).policy[:-1] == 1].max() for radius in radii]
        panels[0, 0].plot(radii, edge, color=colour, label=name, drawstyle="steps-mid")
    panels[0, 0].set(xlabel="rho", ylabel="largest price at which to exercise")
    panels[0, 0].legend(frameon=False, fontsize=8)
    chances = np.linspace(0.2, 0.8, 13)
    for radius, colour in ((0.0, GREY), (0.05, PALE), (0.2, DARK)):
        policy = solved(american_put(stages=5), CressieRead(2, radius)).policy
        paid = [expected_returns(american_put(p, stages=5), policy).start_return for p in chances]
        panels[0, 1].plot(chances, paid, color=colour, label=f"rho {radius:g}")
    panels[0, 1].set(xlabel="probability of a rise, nominal 0.5", ylabel="mean payoff, five stages")
    panels[0, 1].legend(frameon=False, fontsize=8)
    for axes in panels[0]:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "tabular_put.png", dpi=120)


def count_samples() -> None:
    """Samples after which V(100) of the put stays within 5 % and 10 % of the robust value, in the mean of 5 seeds."""
    mdp, ball, at, seeds = american_put(), CressieRead(2, 0.1), 200, range(5)
    exact = solved(mdp, ball).v[at]
    pairs = 2 * int((~mdp.terminal).sum())
    sizes = 2 ** np.arange(0, 13)
    counted = np.array(
        [
            [solved(sample_model(mdp, int(n), seed=seed).mdp, ball, tolerance=1e-6).v[at] for n in sizes]
            for seed in seeds
        ]
    )
    swept = drq(mdp, [ball], 100_000, seeds=seeds, sampling=Sampling("synchronous", record=100))
    walked = drq(mdp, [ball], 10_000_000, seeds=seeds, sampling=Sampling(epsilon=0.2, record=10_000))
    levels = multilevel_drq(mdp, ball, 3_000, seeds=seeds, record=10)
    curves = {
        "model-based": (sizes * pairs, counted),
        "DRQ, synchronous": (swept.samples, swept.curve[0, :, :, at]),
        "DRQ, one trajectory": (walked.samples, walked.curve[0, :, :, at]),
        "multilevel Monte Carlo": (levels.samples.mean(0), levels.curve[:, :, at]),
    }
    for name, (samples, values) in curves.items():
        error = abs(values - exact).mean(0) / exact
        said = []
        for limit in (0.1, 0.05):
            outside = np.flatnonzero(error > limit)
            first = 0 if not len(outside) else int(outside[-1]) + 1
            said.append(f"{samples[first]:.1e}" if first < len(samples) else f"more than {samples[-1]:.1e}")
        print(f"| {name} | {said[0]} | {said[1]} | {100 * error[-1]:.1f} % of {samples[-1]:.1e} |")


DRAWN = {
    "policies": draw_policies,
    "values": draw_values,
    "learning": draw_learning,
    "put": draw_put,
    "samples": count_samples,
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or DRAWN:
        DRAWN[chosen]()
