"""Statistics of returns and their bootstrap intervals; numpy arrays in, numpy arrays out.

Arrays of returns have the axes (S, L, E): trainings of one learner (S), conditions (L), episodes (E).

What an interval means. Two things are random in a comparison of learners: which policy a training happens to
produce, and which start states the evaluation happens to draw. Each bootstrap draw therefore resamples S trainings
with replacement and E start states with replacement. Conditions are never resampled: the suite is fixed. Episode k
starts in the same state under every condition and, with one evaluation seed, for every training; then one draw of
episodes serves all of them (`shared`), since resampling episodes per training would treat one hard start state as
if it were S independent ones.

With one training (S = 1) only start states vary, and the interval speaks about that one policy, not about the
learner. With two, the interval of anything that depends on the training covers at best about half the time; with
five, about 85 %. Nothing computed from so few trainings can mend that; train more seeds.

Strata. Conditions are the strata of this bootstrap: every draw holds each of them once. A training that is drawn is
drawn in all of them, because it was one policy that went through the whole suite. Resampling each condition's runs on
their own, as is right where every task has trainings of its own, would count one lucky training L times over. Several
datasets do have trainings of their own, and are resampled independently (`ranking.across`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Curve = tuple[NDArray[np.intp], Array]
"""One swept parameter: the conditions that form it (K,), and their levels (K,), ascending."""

DESCRIBED = ("nominal", "mean", "iqm", "p5", "cvar10", "worst_level", "area")
"""The statistics of `describe`, in its order."""

_MAX_GATHER = 4_000_000
"""Numbers gathered at once by the bootstrap: bounds its memory to a few tens of megabytes."""


def iqm(values: Array) -> Array:
    """Interquartile mean over the last axis: the mean of the middle half of the mass.

    A value that straddles a quartile counts with the fraction of it inside, so the result is continuous in the
    number of values; where 4 divides it, this is ``scipy.stats.trim_mean(values, 0.25)``.
    """
    return _mean_of_mass(values, 0.25, 0.75)


def cvar(values: Array, share: float = 0.1) -> Array:
    """Conditional value at risk over the last axis: the mean of the lowest ``share`` of the mass."""
    return _mean_of_mass(values, 0.0, share)


def percentile(values: Array, percent: float = 5.0) -> Array:
    """Percentile over the last axis, linear between order statistics."""
    result: Array = np.percentile(values, percent, axis=-1)
    return result


def area(means: Array, levels: Array) -> Array:
    """Area under the curve of means (..., K) over ascending levels (K,), divided by the range of the levels.

    Trapezoids; the division makes it a mean return over the swept range, in units of return.
    """
    result: Array = np.trapezoid(means, levels, axis=-1) / (levels[-1] - levels[0])
    return result


def describe(returns: Array, nominal: NDArray[np.bool_], curves: Sequence[Curve] = ()) -> Array:
    """The statistics `DESCRIBED` of returns (..., S, L, E).

    "nominal" is the mean over the nominal conditions. "mean", "iqm", "p5" and "cvar10" are taken over all episodes of
    all conditions and trainings. "worst_level" is the lowest mean return of any condition. "area" averages the
    normalised areas of all swept parameters, NaN when none is swept alone.

    Args:
        returns: (..., S, L, E).
        nominal: (L,) which conditions are nominal.
        curves: the swept parameters.

    Returns:
        (..., 7).
    """
    by_level: Array = returns.mean((-3, -1))
    pooled = np.sort(returns.reshape(*returns.shape[:-3], -1), axis=-1)
    missing: Array = np.full(by_level.shape[:-1], np.nan)
    areas = [area(by_level[..., index], levels) for index, levels in curves]
    columns: list[Array] = [
        by_level[..., nominal].mean(-1) if nominal.any() else missing,
        by_level.mean(-1),
        iqm(pooled),
        percentile(pooled),
        cvar(pooled),
        by_level.min(-1),
        np.mean(areas, axis=0) if areas else missing,
    ]
    return np.stack(columns, -1)


def bootstrap(
    groups: Sequence[Array],
    statistic: Callable[..., Array],
    rng: np.random.Generator,
    *,
    draws: int = 2_000,
    shared: bool = True,
) -> Array:
    """Bootstrap draws of a statistic of one or several learners' returns.

    Trainings are resampled independently in each group. With ``shared``, one resample of the episodes serves all
    conditions, trainings and groups, which must then have equally many; otherwise every training in every group gets
    its own, the same for all conditions.

    Args:
        groups: arrays (S, L, E), one per learner; S may differ.
        statistic: from one array (draws, S, L, E) per group to (draws, K).
        rng: the stream of the draws.
        draws: how many.
        shared: whether episodes are paired by start state over trainings and groups.

    Returns:
        (draws, K).
    """
    chunk = max(1, _MAX_GATHER // max(group.size for group in groups))
    parts = []
    for start in range(0, draws, chunk):
        count = min(chunk, draws - start)
        common = rng.integers(groups[0].shape[2], size=(count, 1, groups[0].shape[2])) if shared else None
        resampled = []
        for group in groups:
            trainings = rng.integers(group.shape[0], size=(count, group.shape[0]))
            if common is not None:
                episodes = common
            else:
                episodes = rng.integers(group.shape[2], size=(count, group.shape[0], group.shape[2]))
            conditions = np.arange(group.shape[1])[None, None, :, None]
            resampled.append(group[trainings[:, :, None, None], conditions, episodes[:, :, None, :]])
        parts.append(statistic(*resampled))
    return np.concatenate(parts)


def bootstrap_means(
    groups: Sequence[Array],
    statistic: Callable[..., Array],
    rng: np.random.Generator,
    *,
    draws: int = 2_000,
    shared: bool = True,
) -> Array:
    """`bootstrap` for statistics that only need the mean over the episodes of each training and condition.

    The draws are those of `bootstrap`: the same generator gives the same numbers up to rounding.

    Args:
        groups: arrays (S, L, E), one per learner; S may differ.
        statistic: from one array of means (draws, S, L) per group to (draws, K).
        rng: as for `bootstrap`.
        draws: as for `bootstrap`.
        shared: as for `bootstrap`.

    Returns:
        (draws, K).
    """
    return statistic(*resampled_means(groups, rng, draws=draws, shared=shared))


def resampled_means(
    groups: Sequence[Array], rng: np.random.Generator, *, draws: int = 2_000, shared: bool = True
) -> list[Array]:
    """Mean returns (draws, S, L) of the trainings drawn, one array per group; arguments as for `bootstrap`.

    Resampling episodes is a weighting of them by how often each was drawn: a matrix product instead of a gather of
    every episode.
    """
    chunk = max(1, _MAX_GATHER // max(group.size for group in groups))
    parts: list[list[Array]] = [[] for _ in groups]
    for start in range(0, draws, chunk):
        count = min(chunk, draws - start)
        episodes = groups[0].shape[2]
        common = _shares(rng.integers(episodes, size=(count, 1, episodes)), episodes) if shared else None
        for part, group in zip(parts, groups, strict=True):
            trainings = rng.integers(group.shape[0], size=(count, group.shape[0]))
            own = common
            if own is None:
                size = group.shape[2]
                own = _shares(rng.integers(size, size=(count, group.shape[0], size)), size)
            part.append(_drawn_means(group, trainings, own))
    return [np.concatenate(part) for part in parts]


def profile(means: Array, levels: Array) -> Array:
    """The performance profile: the share of trainings x conditions whose mean return exceeds each level.

    Agarwal et al., Deep RL at the edge of the statistical precipice (2021), section 4.2, with conditions for tasks:
    F(tau) = 1/(S L) sum over s and l of [x_sl > tau].

    Args:
        means: (..., S, L) mean returns of trainings under conditions.
        levels: (K,) ascending values of tau.

    Returns:
        (..., K), falling from at most 1 to at least 0.
    """
    flat = means.reshape(*means.shape[:-2], -1)
    batch = flat.reshape(-1, flat.shape[-1])
    # A value exceeds the first `place` levels: count the places per row, then add up from the right.
    place = np.searchsorted(levels, batch, side="left")
    width = len(levels) + 1
    keys = place + width * np.arange(len(batch))[:, None]
    histogram = np.bincount(keys.ravel(), minlength=width * len(batch)).reshape(len(batch), width)
    above = histogram[:, ::-1].cumsum(1)[:, ::-1][:, 1:] / flat.shape[-1]
    result: Array = above.reshape(*means.shape[:-2], len(levels))
    return result


def probability_of_improvement(first: Array, second: Array) -> Array:
    """How likely a training of the first learner beats one of the second, averaged over the conditions.

    In each condition the Mann-Whitney statistic U / (S T): the share of pairs of trainings in which the first has the
    higher mean return, ties counted half (Agarwal et al. 2021, section 4.3). One half says nothing either way.

    Args:
        first: (..., S, L) mean returns of the first learner's trainings.
        second: (..., T, L) the second's, under the same conditions.

    Returns:
        (...), from 0 to 1.
    """
    x, y = first[..., :, None, :], second[..., None, :, :]
    result: Array = ((x > y) + 0.5 * (x == y)).mean((-3, -2, -1))
    return result


def rounding(values: Array) -> float:
    """Differences of values up to this much are rounding."""
    return 1e-12 * float(np.abs(values).max(initial=0.0))


def interval(samples: Array, confidence: float = 0.95) -> tuple[Array, Array]:
    """The percentile interval of bootstrap draws (draws, K): lower and upper ends (K,)."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail], axis=0)
    return low, high


def _shares(chosen: NDArray[np.int64], size: int) -> Array:
    """How often (..., size) each of `size` things is among the chosen (..., E), as a share of the E."""
    rows = chosen.reshape(-1, chosen.shape[-1])
    keys = rows + size * np.arange(len(rows))[:, None]
    counts = np.bincount(keys.ravel(), minlength=size * len(rows)) / chosen.shape[-1]
    shares: Array = counts.reshape(*chosen.shape[:-1], size)
    return shares


def _drawn_means(group: Array, trainings: NDArray[np.int64], weights: Array) -> Array:
    """Means (draws, S, L) of the trainings drawn (draws, S), episodes weighted (draws, 1 or S, E)."""
    count, conditions, episodes = group.shape
    if weights.shape[1] == 1:
        means = (group.reshape(-1, episodes) @ weights[:, 0].T).reshape(count, conditions, -1)
        result = means[trainings, :, np.arange(len(trainings))[:, None]]
    else:
        result = np.empty((*trainings.shape, conditions))
        for training in range(count):
            drawn = trainings == training
            result[drawn] = weights[drawn] @ group[training].T
    # Equal returns have exactly their mean: rounding would break ties that comparisons of draws must see.
    first = group[..., 0]
    return np.where((group == first[..., None]).all(-1)[trainings], first[trainings], result)


def _mean_of_mass(values: Array, start: float, stop: float) -> Array:
    """The mean of the sorted values between two fractions of the mass, cut values counted by their part inside."""
    count = values.shape[-1]
    edges = np.arange(count + 1, dtype=np.float64)
    clipped = np.clip(edges, start * count, stop * count)
    # Between two cuts inside one value the weights are that value's alone; never divide by zero.
    weights = np.diff(clipped) / (clipped[-1] - clipped[0])
    result: Array = np.sort(values, axis=-1) @ weights
    return result
