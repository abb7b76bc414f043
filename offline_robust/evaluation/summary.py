"""From the results table to tables of statistics, each number with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offline_robust.environment import EnvironmentSpec
from offline_robust.errors import EvaluationError, nearest
from offline_robust.evaluation import levels as lv
from offline_robust.evaluation.statistics import (
    DESCRIBED,
    Array,
    area,
    bootstrap,
    bootstrap_means,
    describe,
    interval,
    rounding,
)

_SEED = 0
"""Of the bootstrap when no generator is given, so that a report is the same each time."""

_VALUE = ("value", "low", "high", "trainings", "episodes")
"""The columns of a statistic, behind those that say of what it is one."""


class EpisodeTable(Protocol):
    """What statistics need of a table: `Results`, which imports this module."""

    @property
    def frame(self) -> pd.DataFrame:
        """One row per episode."""

    @property
    def learners(self) -> list[str]:
        """In order of first appearance."""

    @property
    def environments(self) -> dict[str, EnvironmentSpec]:
        """By what the table calls them."""


@dataclass(frozen=True)
class Cube:
    """The returns of one learner, without gaps.

    Attributes:
        learner: its label.
        env_id: what the table calls the environment.
        environment: what is known of it: its description, else what the table calls it.
        returns: (S, L, E).
        trainings: the run and training seed of each of the S trainings.
        conditions: L rows, columns of `levels.CONDITION_COLUMNS`.
        episode_seeds: (S, E) seeds of the start states.
    """

    learner: str
    env_id: str
    environment: str | EnvironmentSpec
    returns: Array
    trainings: tuple[tuple[str, int], ...]
    conditions: pd.DataFrame
    episode_seeds: NDArray[np.int64]

    @property
    def means(self) -> Array:
        """(S, L) mean returns of each training under each condition."""
        means: Array = self.returns.mean(-1)
        return means

    @property
    def shared(self) -> bool:
        """Whether episode k has the same start state in every training."""
        return bool((self.episode_seeds == self.episode_seeds[:1]).all())


def cubes(results: EpisodeTable) -> dict[str, Cube]:
    """The results as one gapless array per learner, in order of first appearance.

    Raises:
        EvaluationError: several environments, or trainings of a learner that were not evaluated alike.
    """
    env_ids = results.frame["env_id"].unique()
    if len(env_ids) != 1:
        raise EvaluationError(f"statistics need one environment, the table has {', '.join(map(str, env_ids))}")
    env_id = str(env_ids[0])
    environment = results.environments.get(env_id, env_id)
    return {
        name: _cube(name, env_id, environment, results.frame[results.frame["learner"] == name])
        for name in results.learners
    }


def summarise(results: EpisodeTable, rng: np.random.Generator | None = None, draws: int = 2_000) -> pd.DataFrame:
    """The statistics of `statistics.describe` for every learner, with 95 % intervals.

    Returns:
        Columns learner, statistic, value, low, high, trainings, episodes (per training and condition); seven rows per
        learner. Read `evaluation.statistics` on what the intervals mean with few trainings.

    Raises:
        EvaluationError: see `cubes`.
    """
    rng = rng or np.random.default_rng(_SEED)
    rows = []
    for name, cube in cubes(results).items():
        nominal = cube.conditions["nominal"].to_numpy(bool)
        curves = [(sweep.index, sweep.levels) for sweep in lv.sweeps(cube.conditions, cube.environment)]
        value = describe(cube.returns, nominal, curves)
        samples = bootstrap(
            [cube.returns],
            partial(describe, nominal=nominal, curves=curves),
            rng,
            draws=draws,
            shared=cube.shared,
        )
        rows += _rows({"learner": name}, "statistic", DESCRIBED, value, samples, cube)
    return pd.DataFrame(rows)


def per_condition(results: EpisodeTable, rng: np.random.Generator | None = None, draws: int = 2_000) -> pd.DataFrame:
    """The mean return of every learner under every condition, with 95 % intervals.

    Returns:
        Columns learner, condition, value, low, high, trainings, episodes.

    Raises:
        EvaluationError: see `cubes`.
    """
    rng = rng or np.random.default_rng(_SEED)
    rows = []
    for name, cube in cubes(results).items():
        samples = bootstrap_means([cube.returns], _over_trainings, rng, draws=draws, shared=cube.shared)
        labels = tuple(cube.conditions["condition"])
        rows += _rows({"learner": name}, "condition", labels, _level_means(cube.returns), samples, cube)
    return pd.DataFrame(rows)


def per_parameter(results: EpisodeTable, rng: np.random.Generator | None = None, draws: int = 2_000) -> pd.DataFrame:
    """For every swept parameter of every learner the area under its curve and its worst level, with 95 % intervals.

    Returns:
        Columns learner, parameter (what the sweep is called), mode, statistic ("area", the trapezoid over the levels
        divided by their range, in units of return, or "worst_level", the lowest mean return), condition (of the worst
        level, "" for the area), value, low, high, trainings, episodes. Grids and levels that move have no rows.

    Raises:
        EvaluationError: see `cubes`.
    """
    rng = rng or np.random.default_rng(_SEED)
    rows: list[dict[str, object]] = []
    for name, cube in cubes(results).items():
        known = lv.sweeps(cube.conditions, cube.environment)
        if not known:
            continue

        def both(by_training: Array, known: list[lv.Sweep] = known) -> Array:
            means = _over_trainings(by_training)
            areas = [area(means[..., sweep.index], sweep.levels) for sweep in known]
            return np.stack([*areas, *(means[..., sweep.index].min(-1) for sweep in known)], -1)

        samples = bootstrap_means([cube.returns], both, rng, draws=draws, shared=cube.shared)
        means = _level_means(cube.returns)
        worst = [cube.conditions["condition"].iloc[sweep.index[means[sweep.index].argmin()]] for sweep in known]
        keys = [(statistic, k) for statistic in ("area", "worst_level") for k in range(len(known))]
        found = _rows({"learner": name}, "statistic", tuple(key for key, _ in keys), both(cube.means), samples, cube)
        for (statistic, k), row in zip(keys, found, strict=True):
            at = {"condition": worst[k] if statistic == "worst_level" else ""}
            rows.append(row | {"parameter": known[k].label, "mode": known[k].mode} | at)
    return pd.DataFrame(rows, columns=["learner", "parameter", "mode", "statistic", "condition", *_VALUE])


def by_severity(results: EpisodeTable, rng: np.random.Generator | None = None, draws: int = 2_000) -> pd.DataFrame:
    """Mean returns by quartile of the distance from nominal, for sweeps that scale one parameter by 1 - d and 1 + d.

    The quartiles are of a parameter's distinct distances; four at least are needed (`levels.severities`). The two sides
    of nominal are also given apart, since a mean over both hides which way a policy fails.

    Returns:
        Columns learner, parameter ("" for all together), side ("both", "below", "above"), quartile (1 nearest to 4
        farthest, 0 for all of them), conditions (how many), value, low, high, trainings, episodes.

    Raises:
        EvaluationError: see `cubes`.
    """
    rng = rng or np.random.default_rng(_SEED)
    rows: list[dict[str, object]] = []
    for name, cube in cubes(results).items():
        scopes = _scopes(lv.severities(cube.conditions, cube.environment))
        if not scopes:
            continue
        masks = np.zeros((cube.returns.shape[1], len(scopes)))
        for k, (*_, index) in enumerate(scopes):
            masks[index, k] = 1.0 / len(index)

        def weighted(by_training: Array, masks: Array = masks) -> Array:
            return _over_trainings(by_training) @ masks

        samples = bootstrap_means([cube.returns], weighted, rng, draws=draws, shared=cube.shared)
        labels = tuple(str(scope[0]) for scope in scopes)
        found = _rows({"learner": name}, "parameter", labels, weighted(cube.means), samples, cube)
        for (_, side, quartile, index), row in zip(scopes, found, strict=True):
            rows.append(row | {"side": side, "quartile": quartile, "conditions": len(index)})
    return pd.DataFrame(rows, columns=["learner", "parameter", "side", "quartile", "conditions", *_VALUE])


def _scopes(known: list[lv.Severity]) -> list[tuple[str, str, int, NDArray[np.intp]]]:
    """Parameter, side, quartile and conditions of every mean that `by_severity` takes."""
    together = [("", known)] if len(known) > 1 else []
    scopes = []
    for parameter, members in [*together, *((own.parameter, [own]) for own in known)]:
        index = np.concatenate([own.index for own in members])
        quartiles = np.concatenate([own.quartile for own in members])
        found = np.concatenate([own.side for own in members])
        for side, sign in (("both", 0), ("below", -1), ("above", 1)):
            for quartile in range(lv.QUARTILES + 1):
                mask = (found * sign >= 0) & ((quartiles == quartile) | (quartile == 0))
                scopes.append((parameter, side, quartile, index[mask]))
    return scopes


def compare(
    results: EpisodeTable,
    a: str,
    b: str,
    levels: Sequence[str | float] | None = None,
    rng: np.random.Generator | None = None,
    draws: int = 2_000,
) -> pd.DataFrame:
    """The difference of two learners' mean returns, a minus b, with 95 % intervals.

    Episodes are paired by start state where both learners were evaluated with the same seed; trainings are resampled
    independently for each learner, since training seed 3 of one has nothing to do with seed 3 of the other.

    Args:
        results: both learners, evaluated under the same conditions.
        a: a learner.
        b: another.
        levels: only these levels (numbers) or conditions (labels); all by default.
        rng: the stream of the bootstrap.
        draws: of the bootstrap.

    Returns:
        Rows "overall" (the mean over the chosen conditions), "nominal", "far" (the mean over the levels far from
        nominal), "far below" and "far above" (those on one side of it), where there are some, then one row per
        condition. Columns scope, condition, difference, low, high,
        favours (a, b, or "" where the interval holds 0), trainings_a, trainings_b, paired.

    Raises:
        EvaluationError: unknown learner or level, or the two were not evaluated under the same conditions.
    """
    rng = rng or np.random.default_rng(_SEED)
    known = cubes(results)
    for name in (a, b):
        if name not in known:
            raise EvaluationError(f"no learner {name!r} in the results{nearest(name, known)}")
    one, two = known[a], known[b]
    if set(one.conditions["condition"]) != set(two.conditions["condition"]):
        differing = sorted(set(one.conditions["condition"]) ^ set(two.conditions["condition"]))
        raise EvaluationError(f"{a} and {b} were not evaluated under the same conditions: {', '.join(differing[:4])}")
    order = [list(two.conditions["condition"]).index(label) for label in one.conditions["condition"]]
    chosen = _choose(one.conditions, levels)
    conditions = one.conditions.iloc[chosen].reset_index(drop=True)
    first, second = one.returns[:, chosen], two.returns[:, order][:, chosen]
    paired = one.shared and two.shared and np.array_equal(one.episode_seeds[0], two.episode_seeds[0])

    nominal, far = conditions["nominal"].to_numpy(bool), lv.far(conditions, one.environment)
    side = lv.sides(conditions, one.environment)
    scopes = [("overall", np.ones(len(conditions), bool)), ("nominal", nominal), ("far", far)]
    scopes += [("far below", far & (side < 0)), ("far above", far & (side > 0))]
    scopes = [(name, mask) for name, mask in scopes if mask.any()]
    masks = np.stack([mask / mask.sum() for _, mask in scopes] + list(np.eye(len(conditions))), axis=1)

    def difference(x: Array, y: Array) -> Array:
        means: Array = (_over_trainings(x) - _over_trainings(y)) @ masks
        return means

    value = difference(first.mean(-1), second.mean(-1))
    low, high = interval(bootstrap_means([first, second], difference, rng, draws=draws, shared=paired))
    small = max(rounding(first), rounding(second))
    return pd.DataFrame(
        {
            "scope": [name for name, _ in scopes] + ["condition"] * len(conditions),
            "condition": [""] * len(scopes) + list(conditions["condition"]),
            "difference": value,
            "low": low,
            "high": high,
            "favours": np.where(low > small, a, np.where(high < -small, b, "")),
            "trainings_a": len(one.trainings),
            "trainings_b": len(two.trainings),
            "paired": paired,
        }
    )


def _level_means(returns: Array) -> Array:
    means: Array = returns.mean((-3, -1))
    return means


def _over_trainings(means: Array) -> Array:
    """From (..., S, L) to (..., L)."""
    averaged: Array = means.mean(-2)
    return averaged


def _rows(
    fixed: dict[str, str], key: str, names: tuple[str, ...], value: Array, samples: Array, cube: Cube
) -> list[dict[str, object]]:
    low, high = interval(samples)
    return [
        {
            **fixed,
            key: name,
            "value": float(value[k]),
            "low": float(low[k]),
            "high": float(high[k]),
            "trainings": len(cube.trainings),
            "episodes": cube.returns.shape[2],
        }
        for k, name in enumerate(names)
    ]


def _cube(learner: str, env_id: str, environment: str | EnvironmentSpec, frame: pd.DataFrame) -> Cube:
    conditions = frame[lv.CONDITION_COLUMNS].drop_duplicates("condition").reset_index(drop=True)
    trainings = frame[["run", "training_seed"]].drop_duplicates().reset_index(drop=True)
    episodes = np.sort(frame["episode"].unique())
    shape = (len(trainings), len(conditions), len(episodes))
    if len(frame) != np.prod(shape):
        raise EvaluationError(
            f"the trainings of '{learner}' were not all evaluated under the same conditions and episodes: {len(frame)} "
            f"episodes are not {shape[0]} trainings x {shape[1]} conditions x {shape[2]} episodes"
        )
    # Rows are identified by this key (Results refuses duplicates), so a full count means a full cube.
    pairs = [(str(run), int(seed)) for run, seed in zip(trainings["run"], trainings["training_seed"], strict=True)]
    s = frame.groupby(["run", "training_seed"], sort=False).ngroup().to_numpy()
    c = frame["condition"].map({label: k for k, label in enumerate(conditions["condition"])}).to_numpy(np.intp)
    e = np.searchsorted(episodes, frame["episode"].to_numpy())
    returns, seeds = np.empty(shape), np.empty(shape, np.int64)
    returns[s, c, e], seeds[s, c, e] = frame["return"], frame["episode_seed"]
    if (seeds != seeds[:, :1]).any():
        raise EvaluationError(f"'{learner}': an episode has different start states under different conditions")
    return Cube(learner, env_id, environment, returns, tuple(pairs), conditions, seeds[:, 0])


def _choose(conditions: pd.DataFrame, levels: Sequence[str | float] | None) -> NDArray[np.intp]:
    if levels is None:
        return np.arange(len(conditions))
    labels, texts = list(conditions["condition"]), list(conditions["level"])
    chosen: list[int] = []
    for level in levels:
        text = level if isinstance(level, str) else f"{level:.12g}"
        hits = [k for k in range(len(labels)) if text in (labels[k], texts[k])]
        if not hits:
            raise EvaluationError(f"no level or condition {text!r} in the results{nearest(text, labels)}")
        chosen += hits
    return np.array(sorted(set(chosen)), np.intp)
