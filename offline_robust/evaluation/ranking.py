"""Which learner is best, where, and how surely: IQM over trainings, performance profiles, probabilities, leaders.

Everything here is made of the mean returns of trainings under conditions. Read `evaluation.statistics` on what the
bootstrap resamples, and what its intervals are worth with few trainings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_robust.errors import EvaluationError
from offline_robust.evaluation import levels as lv
from offline_robust.evaluation.results import Results
from offline_robust.evaluation.scores import ScoreReference
from offline_robust.evaluation.statistics import (
    Array,
    interval,
    iqm,
    probability_of_improvement,
    profile,
    resampled_means,
    rounding,
)
from offline_robust.evaluation.summary import Cube, cubes

_SEED = 0
"""Of the bootstrap when no generator is given, so that a report is the same each time."""

_POINTS = 101
"""Levels of a performance profile."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """The cubes of all learners and bootstrap draws of their trainings' mean returns; one serves several questions.

    Attributes:
        known: the cubes by learner, conditions in the order of the first's.
        means: (draws, S, L) of each learner.
    """

    known: dict[str, Cube]
    means: list[Array]

    @classmethod
    def of(cls, results: Results, rng: np.random.Generator | None = None, draws: int = 2_000) -> Resampled:
        """Draws them.

        Raises:
            EvaluationError: see `aligned`.
        """
        known = aligned(results)
        own = list(known.values())
        stream = rng or np.random.default_rng(_SEED)
        groups = [cube.returns for cube in own]
        return cls(known, resampled_means(groups, stream, draws=draws, shared=paired(own)))


Scope = tuple[str, str, NDArray[np.intp]]
"""Kind ("nominal", "parameter", "all"), what it is called, positions of its conditions."""


def aligned(results: Results) -> dict[str, Cube]:
    """The cubes of all learners, with the conditions in the order of the first learner's.

    Raises:
        EvaluationError: several environments, or learners that were not evaluated under the same conditions.
    """
    known = cubes(results)
    first = next(iter(known.values()))
    labels = list(first.conditions["condition"])
    found = {}
    for name, cube in known.items():
        place = {label: k for k, label in enumerate(cube.conditions["condition"])}
        if place.keys() != set(labels):
            differing = sorted(place.keys() ^ set(labels))
            raise EvaluationError(
                f"{first.learner} and {name} were not evaluated under the same conditions: {', '.join(differing[:4])}"
            )
        order = [place[label] for label in labels]
        found[name] = replace(cube, returns=cube.returns[:, order], conditions=first.conditions)
    return found


def paired(known: Sequence[Cube]) -> bool:
    """Whether episode k starts in the same state in every training of every learner."""
    first = known[0].episode_seeds[0]
    return all(cube.shared and np.array_equal(cube.episode_seeds[0], first) for cube in known)


def iqms(results: Results | Resampled, rng: np.random.Generator | None = None, draws: int = 2_000) -> pd.DataFrame:
    """The interquartile mean over trainings x conditions of the mean returns, with 95 % stratified bootstrap intervals.

    Unlike the "iqm" of `summarise`, which is taken over single episodes, this one has a training's mean return under a
    condition for its unit, as in Agarwal et al. (2021), with conditions for tasks.

    Returns:
        Columns learner, value, low, high, trainings.

    Raises:
        EvaluationError: see `aligned`.
    """
    known, resampled = _resampled(results, rng, draws)
    rows = []
    for (name, cube), means in zip(known.items(), resampled, strict=True):
        low, high = interval(iqm(_flat(means)))
        value = float(iqm(cube.means.ravel()))
        rows.append({"learner": name, "value": value, "low": float(low), "high": float(high)})
        rows[-1]["trainings"] = len(cube.trainings)
    return pd.DataFrame(rows)


def profiles(results: Results | Resampled, rng: np.random.Generator | None = None, draws: int = 2_000) -> pd.DataFrame:
    """The performance profile of every learner: the share of trainings x conditions above each return, with bands.

    Returns:
        Columns learner, tau (101 returns from the lowest to the highest mean return in the table), value, low, high;
        the band is pointwise 95 %.

    Raises:
        EvaluationError: see `aligned`.
    """
    known, resampled = _resampled(results, rng, draws)
    bottom, top = (end([end(cube.means) for cube in known.values()]) for end in (np.min, np.max))
    taus = np.linspace(bottom, top, _POINTS)
    parts = []
    for (name, cube), means in zip(known.items(), resampled, strict=True):
        low, high = interval(profile(means, taus))
        parts.append(
            pd.DataFrame({"learner": name, "tau": taus, "value": profile(cube.means, taus), "low": low, "high": high})
        )
    return pd.concat(parts, ignore_index=True)


def improvement(
    results: Results | Resampled, rng: np.random.Generator | None = None, draws: int = 2_000
) -> pd.DataFrame:
    """For every ordered pair of learners the probability that a training of one beats a training of the other.

    Returns:
        Columns a, b, value (`statistics.probability_of_improvement` of a over b), low, high; the pair (b, a) has one
        minus that. Empty with one learner.

    Raises:
        EvaluationError: see `aligned`.
    """
    known, resampled = _resampled(results, rng, draws)
    names = list(known)
    rows = {}
    for i, a in enumerate(names):
        for j, b in enumerate(names[:i]):
            value = float(probability_of_improvement(known[a].means, known[b].means))
            # Drawn pairs of a large comparison take (draws, S, T, L) booleans at once; bounded by parts.
            parts = [
                probability_of_improvement(resampled[i][k : k + 200], resampled[j][k : k + 200])
                for k in range(0, len(resampled[i]), 200)
            ]
            low, high = (float(end) for end in interval(np.concatenate(parts)))
            rows[a, b] = {"a": a, "b": b, "value": value, "low": low, "high": high}
            rows[b, a] = {"a": b, "b": a, "value": 1.0 - value, "low": 1.0 - high, "high": 1.0 - low}
    ordered = [rows[a, b] for a in names for b in names if a != b]
    return pd.DataFrame(ordered, columns=["a", "b", "value", "low", "high"])


def leaders(results: Results | Resampled, rng: np.random.Generator | None = None, draws: int = 2_000) -> pd.DataFrame:
    """Who returns most at nominal, under each kind of perturbation, over all conditions, and at its worst one.

    Returns:
        Columns scope ("nominal", "parameter", "all", "worst"), label (of a parameter: its name, and the mode where one
        parameter is there in several), conditions (how many), learner (the one with the highest mean return), value,
        low, high, next (the one behind it, "" with one learner), difference (leader minus next), difference_low,
        difference_high, and tied: all learners whose difference from the leader has an interval that holds zero.
        The leader is chosen by the same numbers, so its lead is on average a little too large.

    Raises:
        EvaluationError: see `aligned`.
    """
    known, resampled = _resampled(results, rng, draws)
    names = list(known)
    values = np.stack([cube.means.mean(0) for cube in known.values()])
    samples = np.stack([means.mean(1) for means in resampled])
    conditions = next(iter(known.values())).conditions
    rows = []
    for kind, label, index in scopes(conditions):
        rows.append(_leader(kind, label, len(index), names, values[:, index].mean(1), samples[..., index].mean(2)))
    rows.append(_leader("worst", "", len(conditions), names, values.min(1), samples.min(2)))
    return pd.DataFrame(rows)


def scopes(conditions: pd.DataFrame) -> list[Scope]:
    """Groups of a table's conditions: the nominal ones, those that perturb the same parameters alike, all of them."""
    nominal = conditions["nominal"].to_numpy(bool)
    found: list[Scope] = [("nominal", "", np.flatnonzero(nominal))] if nominal.any() else []
    moves = lv.moving(conditions)
    keys = [(str(p), str(m)) for p, m in zip(conditions["perturbation"], conditions["mode"], strict=True)]
    groups: dict[tuple[str, str], list[int]] = {}
    for k, key in enumerate(keys):
        if not nominal[k]:
            groups.setdefault(key, []).append(k)
    for (parameter, mode), members in groups.items():
        several = sum(other == parameter for other, _ in groups) > 1
        label = f"{parameter} ({mode.replace(';', ', ')})" if several or moves[members[0]] else parameter
        found.append(("parameter", label, np.array(members, np.intp)))
    return [*found, ("all", "", np.arange(len(conditions)))]


def across(
    parts: Mapping[str, Results],
    scores: Mapping[str, ScoreReference],
    rng: np.random.Generator | None = None,
    draws: int = 2_000,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Learners over several datasets or environments, on the scale of named references.

    Every part counts the same, however many conditions it has. Its trainings are its own and are resampled on their
    own: parts are strata, as tasks are in Agarwal et al. (2021).

    Args:
        parts: results by name, each in one environment.
        scores: the reference of each part.
        rng: the stream of the bootstrap.
        draws: of the bootstrap.

    Returns:
        The IQM over parts x trainings of the score at nominal ("nominal", where every part has a nominal condition)
        and of the mean score over the suite ("suite"): columns learner, statistic, value, low, high, parts, trainings;
        and the profiles over parts, trainings and conditions: columns learner, tau, value, low, high. Learners that
        some part lacks are left out.

    Raises:
        EvaluationError: see `aligned`, or a part without a reference.
    """
    missing = [name for name in parts if name not in scores]
    if missing:
        raise EvaluationError(f"no score reference for {', '.join(missing)}: returns of several cannot be put together")
    rng = rng or np.random.default_rng(_SEED)
    names = [n for n in next(iter(parts.values())).learners if all(n in part.learners for part in parts.values())]
    scored: dict[str, list[tuple[Array, Array, NDArray[np.bool_]]]] = {name: [] for name in names}
    for key, part in parts.items():
        known, resampled = _resampled(part, rng, draws)
        for (name, cube), means in zip(known.items(), resampled, strict=True):
            if name in scored:
                nominal = cube.conditions["nominal"].to_numpy(bool)
                scored[name].append((scores[key].score(cube.means), scores[key].score(means), nominal))
    rows = []
    for name, own in scored.items():
        for statistic in ("nominal", "suite"):
            if statistic == "nominal" and not all(at.any() for _, _, at in own):
                continue
            chosen = [at if statistic == "nominal" else np.ones_like(at) for _, _, at in own]
            # A part with fewer trainings repeats them, so that every part weighs the same.
            whole = math.lcm(*(v.shape[-2] for v, _, _ in own))
            pairs = [
                [np.repeat(x[..., at].mean(-1), whole // x.shape[-2], axis=-1) for x in (v, s)]
                for (v, s, _), at in zip(own, chosen, strict=True)
            ]
            value = iqm(np.concatenate([v for v, _ in pairs], -1))
            low, high = interval(iqm(np.concatenate([s for _, s in pairs], -1)))
            row: dict[str, object] = {"learner": name, "statistic": statistic, "value": float(value)}
            row |= {"low": float(low), "high": float(high)}
            rows.append(row | {"parts": len(own), "trainings": sum(len(v) for v, _, _ in own)})
    everything = [v.ravel() for own in scored.values() for v, _, _ in own]
    joined = np.concatenate(everything) if everything else np.array([0.0, 1.0])
    taus = np.linspace(joined.min(), joined.max(), _POINTS)
    curves = []
    for name, own in scored.items():
        low, high = interval(np.mean([profile(s, taus) for _, s, _ in own], axis=0))
        value = np.mean([profile(v, taus) for v, _, _ in own], axis=0)
        curves.append(pd.DataFrame({"learner": name, "tau": taus, "value": value, "low": low, "high": high}))
    table = pd.DataFrame(rows, columns=["learner", "statistic", "value", "low", "high", "parts", "trainings"])
    return table, pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=["learner", "tau"])


def _leader(kind: str, label: str, count: int, names: list[str], values: Array, samples: Array) -> dict[str, object]:
    order = np.argsort(-values, kind="stable")
    best = int(order[0])
    low, high = interval(samples[best])
    row: dict[str, object] = {"scope": kind, "label": label, "conditions": count, "learner": names[best]}
    row |= {"value": float(values[best]), "low": float(low), "high": float(high), "next": ""}
    row |= {"difference": np.nan, "difference_low": np.nan, "difference_high": np.nan, "tied": ()}
    if len(names) == 1:
        return row
    lows, highs = interval((samples[best] - samples).T)
    second = int(order[1])
    row |= {"next": names[second], "difference": float(values[best] - values[second])}
    row |= {"difference_low": float(lows[second]), "difference_high": float(highs[second])}
    return row | {"tied": tuple(names[k] for k in order[1:] if lows[k] <= rounding(values))}


def _resampled(
    results: Results | Resampled, rng: np.random.Generator | None, draws: int
) -> tuple[dict[str, Cube], list[Array]]:
    drawn = results if isinstance(results, Resampled) else Resampled.of(results, rng, draws)
    return drawn.known, drawn.means


def _flat(means: Array) -> Array:
    return means.reshape(*means.shape[:-2], -1)
