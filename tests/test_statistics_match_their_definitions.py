"""Statistics: equal to closed forms and scipy, invariant where they must be, and honest in their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from offline_robust.errors import EvaluationError
from offline_robust.evaluation import Results, compare, per_condition, summarise
from offline_robust.evaluation.levels import far, grids, sweeps
from offline_robust.evaluation.results import results_frame
from offline_robust.evaluation.statistics import (
    DESCRIBED,
    area,
    bootstrap,
    cvar,
    describe,
    interval,
    iqm,
    percentile,
)
from offline_robust.evaluation.summary import cubes

FLOATS = st.floats(-1e4, 1e4, allow_nan=False, width=32)
FIXED = settings(derandomize=True, deadline=None, max_examples=60)
VECTORS = hnp.arrays(np.float64, st.integers(1, 40), elements=FLOATS)


def table(
    returns: NDArray[np.float64],
    learner: str = "a",
    levels: list[float] | None = None,
    episode_seeds: NDArray[np.int64] | None = None,
    parameter: str = "length",
) -> Results:
    """A results table of returns (S, L, E)."""
    levels = levels or [0.5 + k / 10 for k in range(returns.shape[1])]
    frames = []
    for s, training in enumerate(returns):
        for level, episodes in zip(levels, training, strict=True):
            seeds = np.arange(len(episodes)) if episode_seeds is None else episode_seeds[s]
            frames.append(
                results_frame(
                    {
                        "run": f"{learner}-{s}",
                        "learner": learner,
                        "training_seed": s,
                        "env_id": "Pendulum-v1",
                        "condition": f"{parameter} x{level:g}",
                        "nominal": abs(level - 1.0) < 1e-9,
                        "perturbation": parameter,
                        "level": f"{level:.12g}",
                        "mode": "scale",
                        "episode": np.arange(len(episodes)),
                        "episode_seed": seeds,
                        "return": episodes,
                        "length": 200,
                        "terminated": False,
                    }
                )
            )
    return Results(pd.concat(frames, ignore_index=True))


@FIXED
@given(hnp.arrays(np.float64, st.integers(1, 10).map(lambda k: 4 * k), elements=FLOATS))
def test_iqm_is_scipys_trimmed_mean_where_sizes_divide(values: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(iqm(values), stats.trim_mean(values, 0.25), atol=1e-6)


def test_iqm_and_cvar_weigh_cut_values_by_the_part_inside() -> None:
    # Six values: the middle half of the mass is 3 values' worth, half of the 2nd, the 3rd, the 4th, half of the 5th.
    np.testing.assert_allclose(iqm(np.array([9.0, 1.0, 2.0, 4.0, 8.0, 100.0])), (0.5 * 2 + 4 + 8 + 0.5 * 9) / 3)
    # A tenth of 15 values is one and a half.
    np.testing.assert_allclose(cvar(np.arange(15.0)), (0 * 1 + 1 * 0.5) / 1.5)
    np.testing.assert_allclose(cvar(np.arange(40.0)), 1.5)
    np.testing.assert_allclose(cvar(np.array([3.0, 5.0])), 3.0)


@FIXED
@given(VECTORS)
def test_cvar_is_the_integral_of_the_quantile_function(values: NDArray[np.float64]) -> None:
    # Acerbi and Tasche's closed form, by the Rockafellar-Uryasev maximum over the threshold.
    best = max(t - np.maximum(t - values, 0.0).mean() / 0.1 for t in values)
    np.testing.assert_allclose(cvar(values), best, rtol=1e-6, atol=1e-2)


def test_normal_data_give_the_normal_laws_statistics() -> None:
    values = np.random.default_rng(0).normal(10.0, 2.0, 200_000)
    tail = 10.0 - 2.0 * stats.norm.pdf(stats.norm.ppf(0.1)) / 0.1
    np.testing.assert_allclose(cvar(values), tail, atol=0.03)
    np.testing.assert_allclose(iqm(values), 10.0, atol=0.03)
    np.testing.assert_allclose(percentile(values), stats.norm.ppf(0.05, 10.0, 2.0), atol=0.03)


@FIXED
@given(VECTORS, st.floats(0.1, 10.0), st.floats(-100.0, 100.0), st.integers(0, 1000))
def test_statistics_follow_shifts_and_scales_and_forget_the_order(
    values: NDArray[np.float64], scale: float, shift: float, seed: int
) -> None:
    shuffled = np.random.default_rng(seed).permutation(values)
    for statistic in (iqm, cvar, percentile):
        expected = scale * statistic(values) + shift
        np.testing.assert_allclose(statistic(scale * shuffled + shift), expected, rtol=1e-9, atol=1e-6)


@FIXED
@given(VECTORS)
def test_statistics_are_ordered_and_inside_the_data(values: NDArray[np.float64]) -> None:
    slack = 1e-9 * (1 + np.abs(values).max())
    assert values.min() - slack <= cvar(values) <= values.mean() + slack
    assert values.min() - slack <= iqm(values) <= values.max() + slack


def test_area_of_a_straight_line_is_its_middle_whatever_the_levels() -> None:
    levels = np.array([0.5, 0.6, 1.1, 1.5])
    np.testing.assert_allclose(area(3.0 + 2.0 * levels, levels), 3.0 + 2.0 * 1.0)
    np.testing.assert_allclose(area(np.array([0.0, 4.0]), np.array([7.0, 9.0])), 2.0)


def test_describe_is_what_its_docstring_says() -> None:
    returns = np.random.default_rng(0).normal(size=(3, 5, 8))
    levels = np.linspace(0.5, 1.5, 5)
    nominal = np.arange(5) == 2
    got = dict(zip(DESCRIBED, describe(returns, nominal, [(np.arange(5), levels)]), strict=True))
    assert got["nominal"] == pytest.approx(returns[:, 2].mean())
    assert got["mean"] == pytest.approx(returns.mean())
    assert got["iqm"] == pytest.approx(stats.trim_mean(returns.ravel(), 0.25))
    assert got["p5"] == pytest.approx(np.percentile(returns, 5))
    assert got["cvar10"] == pytest.approx(np.sort(returns.ravel())[:12].mean())
    assert got["worst_level"] == pytest.approx(min(returns[:, k].mean() for k in range(5)))
    assert got["area"] == pytest.approx(np.trapezoid(returns.mean((0, 2)), levels))
    # Batches of resamples give the same as one at a time.
    both = describe(np.stack([returns, returns + 1.0]), nominal, [(np.arange(5), levels)])
    np.testing.assert_allclose(both[1] - both[0], 1.0)


def _coverage(trainings: int, between: float, start: float, noise: float, shared: bool = True) -> float:
    """How often the interval of the mean holds the truth, on data with known sources of variation."""
    rng = np.random.default_rng(5)
    episodes, hits, repeats = 20, 0, 300
    for _ in range(repeats):
        returns = (
            between * rng.normal(size=(trainings, 1, 1))
            + start * rng.normal(size=(1, 1, episodes))
            + noise * rng.normal(size=(trainings, 2, episodes))
        )
        samples = bootstrap([returns], lambda x: x.mean((1, 2, 3))[:, None], rng, draws=300, shared=shared)
        low, high = interval(samples)
        hits += bool(low[0] <= 0.0 <= high[0])
    return hits / repeats


def test_the_interval_covers_the_truth_about_as_often_as_documented() -> None:
    assert 0.88 <= _coverage(1, 0.0, 1.0, 1.0) <= 0.98
    assert 0.88 <= _coverage(5, 0.0, 1.0, 0.3) <= 0.98
    assert 0.88 <= _coverage(12, 1.0, 0.5, 0.3) <= 0.98
    # What the documentation warns of: few trainings that differ.
    assert 0.35 <= _coverage(2, 1.0, 0.0, 0.05) <= 0.65
    assert 0.75 <= _coverage(5, 1.0, 0.0, 0.05) <= 0.92


def test_counting_shared_start_states_per_training_would_be_far_too_sure() -> None:
    """Why one resample of start states serves all trainings: otherwise S = 5 trainings hide a hard draw of starts."""
    assert _coverage(5, 0.0, 1.0, 0.1, shared=False) < 0.75


def test_episodes_of_one_policy_never_count_as_trainings() -> None:
    """Ten times the episodes leave an interval as wide as before when it is the trainings that differ."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(6, 1, 1))

    def width(episodes: int) -> float:
        returns = offsets + 0.1 * rng.normal(size=(6, 1, episodes))
        low, high = interval(bootstrap([returns], lambda x: x.mean((1, 2, 3))[:, None], rng, draws=2_000))
        return float(high[0] - low[0])

    assert width(200) > 0.85 * width(20)


def test_the_bootstrap_is_the_same_whatever_its_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    returns = np.random.default_rng(0).normal(size=(3, 2, 7))

    def run() -> NDArray[np.float64]:
        rng = np.random.default_rng(1)
        return bootstrap([returns], lambda x: x.mean((1, 3)), rng, draws=400)

    whole = run()
    assert whole.shape == (400, 2)
    monkeypatch.setattr("offline_robust.evaluation.statistics._MAX_GATHER", 1_000)
    assert run().shape == (400, 2)
    np.testing.assert_allclose(run().std(0), whole.std(0), rtol=0.15)


def test_the_standard_error_of_the_bootstrap_is_the_closed_form() -> None:
    """One training: the bootstrap standard error of a mean is the population standard deviation over sqrt(E)."""
    returns = np.random.default_rng(0).normal(size=(1, 1, 30))
    samples = bootstrap([returns], lambda x: x.mean((1, 2, 3))[:, None], np.random.default_rng(0), draws=20_000)
    assert samples.std() == pytest.approx(returns.std() / np.sqrt(30), rel=0.03)
    assert samples.mean() == pytest.approx(returns.mean(), abs=0.01)


def test_compare_cancels_what_the_learners_share_and_finds_what_they_do_not() -> None:
    rng = np.random.default_rng(0)
    starts = 100.0 * rng.normal(size=(1, 1, 20))
    base = starts + rng.normal(size=(4, 11, 20))
    better = base[rng.permutation(4)] + np.where(np.arange(11) >= 8, 5.0, 0.0)[None, :, None]
    both = Results.concat([table(better, "new"), table(base, "old")])
    rows = compare(both, "new", "old").set_index(["scope", "condition"])
    far_row, nominal = rows.loc[("far", "")], rows.loc[("nominal", "")]
    assert far_row["paired"]
    assert far_row["difference"] == pytest.approx(2.5)
    assert far_row["favours"] == "new"
    assert nominal["favours"] == ""
    assert rows.loc[("condition", "length x1.5"), "difference"] == pytest.approx(5.0)
    # Start states vary a hundred times as much as the policies: unpaired, the difference would drown.
    assert far_row["high"] - far_row["low"] < 3.0
    unpaired = Results.concat(
        [table(better, "new"), table(base, "old", episode_seeds=np.tile(np.arange(50, 70), (4, 1)))]
    )
    wide = compare(unpaired, "new", "old").set_index("scope").loc["far"]
    assert not wide["paired"]
    assert wide["high"] - wide["low"] > 20.0


def test_compare_is_antisymmetric_and_takes_levels() -> None:
    rng = np.random.default_rng(0)
    both = Results.concat([table(rng.normal(size=(3, 11, 9)), "a"), table(rng.normal(size=(2, 11, 9)), "b")])
    ab, ba = compare(both, "a", "b"), compare(both, "b", "a")
    np.testing.assert_allclose(ab["difference"], -ba["difference"])
    some = compare(both, "a", "b", levels=[0.5, "length x1.5"])
    by_scope = some.set_index("scope")["difference"]
    per_level = some[some["scope"] == "condition"].set_index("condition")["difference"]
    assert list(per_level.index) == ["length x0.5", "length x1.5"]
    assert by_scope["overall"] == pytest.approx(per_level.mean())
    assert by_scope["far"] == pytest.approx(per_level.mean())
    assert by_scope["far below"] == pytest.approx(per_level["length x0.5"])
    assert by_scope["far above"] == pytest.approx(per_level["length x1.5"])
    for wrong in ({"a": "c", "b": "b"}, {"a": "a", "b": "b", "levels": [0.55]}):
        with pytest.raises(EvaluationError):
            compare(both, **wrong)  # type: ignore[arg-type]


def test_compare_matches_conditions_by_name_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 3, 5))
    straight = Results.concat([table(a, "a", [0.5, 1.0, 1.5]), table(b, "b", [0.5, 1.0, 1.5])])
    turned = Results.concat([table(a, "a", [0.5, 1.0, 1.5]), table(b[:, ::-1], "b", [1.5, 1.0, 0.5])])
    pd.testing.assert_frame_equal(compare(straight, "a", "b"), compare(turned, "a", "b"))


def test_incomplete_tables_are_refused() -> None:
    results = table(np.zeros((2, 3, 4)))
    with pytest.raises(EvaluationError, match="not all evaluated"):
        summarise(Results(results.frame.iloc[:-1]))
    other = results.frame.assign(env_id="Hopper-v5", run="x")
    with pytest.raises(EvaluationError, match="one environment"):
        summarise(Results(pd.concat([results.frame, other])))
    with pytest.raises(EvaluationError, match="same conditions"):
        compare(Results.concat([results, table(np.zeros((1, 2, 4)), "b")]), "a", "b")


def test_the_cube_does_not_depend_on_the_order_of_rows() -> None:
    returns = np.random.default_rng(0).normal(size=(3, 4, 5))
    results = table(returns)
    np.testing.assert_array_equal(cubes(results)["a"].returns, returns)
    shuffled = Results(results.frame.sample(frac=1.0, random_state=0))
    cube = cubes(shuffled)["a"]
    order_s = [int(run.split("-")[1]) for run, _ in cube.trainings]
    order_c = [round((float(level) - 0.5) * 10) for level in cube.conditions["level"]]
    np.testing.assert_array_equal(cube.returns, returns[order_s][:, order_c])


def test_summaries_hold_the_values_and_repeat() -> None:
    returns = np.random.default_rng(0).normal(size=(3, 11, 6))
    results = table(returns)
    summary = results.summary(draws=200)
    assert list(summary["statistic"]) == list(DESCRIBED)
    assert ((summary["low"] <= summary["value"]) & (summary["value"] <= summary["high"])).all()
    assert set(summary["trainings"]) == {3}
    pd.testing.assert_frame_equal(summary, results.summary(draws=200))
    levels = per_condition(results)
    np.testing.assert_allclose(levels["value"], returns.mean((0, 2)))
    narrow = results.summary(np.random.default_rng(9), draws=200)
    assert (narrow["low"] != summary["low"]).any()


def test_far_levels_lie_beyond_six_tenths_on_each_side() -> None:
    conditions = cubes(table(np.zeros((1, 11, 1))))["a"].conditions
    assert [conditions["level"][k] for k in np.flatnonzero(far(conditions, "Pendulum-v1"))] == [
        "0.5", "0.6", "0.7", "1.3", "1.4", "1.5"
    ]  # fmt: skip


def _conditions(rows: list[tuple[str, str, str, bool]]) -> pd.DataFrame:
    columns = [
        {"condition": f"{p} {lv}", "nominal": nominal, "perturbation": p, "level": lv, "mode": mode}
        for p, lv, mode, nominal in rows
    ]
    return pd.DataFrame(columns)


def test_the_nominal_condition_joins_a_sweep_that_lacks_it() -> None:
    rows = [("nominal", "", "", True), ("length", "1.5", "scale", False), ("length", "0.5", "scale", False)]
    (sweep,) = sweeps(_conditions(rows), "Pendulum-v1")
    np.testing.assert_array_equal(sweep.index, [2, 0, 1])
    np.testing.assert_array_equal(sweep.levels, [0.5, 1.0, 1.5])


def test_grids_are_recognised_with_their_gaps() -> None:
    rows = [("length+mass", f"{a};{b}", "scale;scale", False) for a in (1, 2) for b in (3, 5, 4)]
    (found,) = grids(_conditions(rows[:-1]))
    np.testing.assert_array_equal(found.index, [[0, 2, 1], [3, -1, 4]])
    assert sweeps(_conditions(rows), "Pendulum-v1") == []


@FIXED
@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6), st.text(max_size=6)), min_size=1, max_size=6))
def test_foreign_condition_texts_never_break_the_reading(rows: list[tuple[str, str, str]]) -> None:
    conditions = _conditions([(p, lv, mode, False) for p, lv, mode in rows])
    found: Any = far(conditions, "Pendulum-v1")
    assert found.shape == (len(rows),)
    assert all(len(sweep.levels) > 1 for sweep in sweeps(conditions, "Pendulum-v1"))
