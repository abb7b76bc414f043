"""Figures over all conditions and over training: performance profiles and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from offline_robust.reports.analysis import Analysis
from offline_robust.reports.canvas import band, colour, dashes, panels, plain
from offline_robust.reports.records import RunRecord

_KEYS = 12
"""Metrics that are drawn; those that most runs have come first."""


def profile_figure(known: Analysis, narrow: bool = False) -> Figure:
    """The share of trainings x conditions with a mean return above each level, with pointwise 95 % bands."""
    return draw_profiles(known.profiles, known, "mean return above τ", narrow)


def draw_profiles(table: pd.DataFrame, known: Analysis, quantity: str, narrow: bool = False) -> Figure:
    """Profiles as `evaluation.ranking.profiles` or `across` gives them; colours by the places of ``known``."""
    learners = list(dict.fromkeys(table["learner"]))
    names = [(known.place(name), name) for name in learners]
    figure, (axis,) = panels(1, 3.8, names, narrow=narrow, markers=False)
    for name in learners:
        own, k = table[table["learner"] == name], known.place(name)
        axis.fill_between(own["tau"], own["low"], own["high"], color=colour(k), alpha=band(len(learners)), linewidth=0)
        axis.plot(own["tau"], own["value"], color=colour(k), linestyle=dashes(k), linewidth=2.2)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xlabel("τ")
    axis.set_ylabel(f"share with {quantity}")
    return figure


def metric_figure(
    records: Sequence[RunRecord], learners: Sequence[str], prefixes: Sequence[str], narrow: bool = False
) -> Figure | None:
    """Metrics against updates, a panel per key: the mean over a learner's runs, and the range they span.

    Updates of the policy are counted from its first, whatever was trained before it.

    None when no run has any. Up to twelve keys are drawn, those that most runs have.

    Args:
        records: the runs.
        learners: in the order that gives them their colours.
        prefixes: of the keys that are wanted.
        narrow: panels under each other, for a small screen.
    """
    table = metric_data(records, prefixes)
    if table.empty:
        return None
    order = list(dict.fromkeys([*learners, *table["learner"]]))
    shown = [(order.index(name), name) for name in order if name in set(table["learner"])]
    keys = list(dict.fromkeys(table["metric"]))
    shade = band(len(shown))
    figure, axes = panels(len(keys), 2.5, shown, narrow=narrow, titled=True, markers=False)
    for axis, key in zip(axes, keys, strict=True):
        for name, own in table[table["metric"] == key].groupby("learner", sort=False):
            k = order.index(str(name))
            if (own["runs"] > 1).any():
                axis.fill_between(own["step"], own["low"], own["high"], color=colour(k), alpha=shade, linewidth=0)
            axis.plot(own["step"], own["mean"], color=colour(k), linestyle=dashes(k), linewidth=1.3)
        axis.set_title(plain(key), fontsize=10)
        axis.set_xlabel("updates" if key.startswith("model/") else "updates of the policy")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.locator_params(nbins=5)
    return figure


def metric_data(records: Sequence[RunRecord], prefixes: Sequence[str]) -> pd.DataFrame:
    """The numbers of `metric_figure`: learner, metric, step, mean, low, high (the range of its runs), runs."""
    counts: dict[str, int] = {}
    for record in records:
        for key, (steps, _) in record.metrics.items():
            if key.startswith(tuple(prefixes)) and len(steps):
                counts[key] = counts.get(key, 0) + 1
    first = list(counts)
    chosen = sorted(counts, key=lambda key: (-counts[key], first.index(key)))[:_KEYS]
    parts = []
    for key in (key for key in first if key in chosen):
        groups: dict[str, list[Any]] = {}
        for record in records:
            if key in record.metrics and len(record.metrics[key][0]):
                steps, values = record.metrics[key]
                shift = 0.0 if key.startswith("model/") else record.before
                groups.setdefault(record.learner, []).append((steps - shift, values))
        for learner, curves in groups.items():
            steps, values = _together(curves)
            parts.append(
                pd.DataFrame(
                    {
                        "learner": learner,
                        "metric": key,
                        "step": steps,
                        "mean": values.mean(0),
                        "low": values.min(0),
                        "high": values.max(0),
                        "runs": len(curves),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["learner", "metric", "runs"])


def _together(curves: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curves of several runs on the steps that all of them reached: (K,) and (runs, K)."""
    first = curves[0][0]
    if all(np.array_equal(steps, first) for steps, _ in curves):
        return first, np.stack([values for _, values in curves])
    start, stop = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    if start > stop:
        return first, np.stack([np.interp(first, steps, values) for steps, values in curves])
    common = np.unique(np.clip(np.concatenate([steps for steps, _ in curves]), start, stop))
    return common, np.stack([np.interp(common, steps, values) for steps, values in curves])
