"""Profiles, IQM over trainings, probability of improvement, leaders: equal to their definitions, honest intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats
from test_statistics_match_their_definitions import table

from offline_robust.errors import EvaluationError
from offline_robust.evaluation import Results
from offline_robust.evaluation.ranking import across, improvement, iqms, leaders, profiles
from offline_robust.evaluation.scores import ScoreReference
from offline_robust.evaluation.statistics import (
    bootstrap,
    bootstrap_means,
    interval,
    iqm,
    probability_of_improvement,
    profile,
    resampled_means,
)
from offline_robust.evaluation.summary import compare

FIXED = settings(derandomize=True, deadline=None, max_examples=60)
WHOLE = st.integers(-5, 5).map(float)  # whole numbers, so that ties are common


def both(a: NDArray[np.float64], b: NDArray[np.float64], **options: object) -> Results:
    return Results.concat([table(a, "a", **options), table(b, "b", **options)])  # type: ignore[arg-type]


@FIXED
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)), elements=WHOLE),
    st.lists(WHOLE, min_size=1, max_size=7, unique=True).map(sorted),
)
def test_the_profile_is_the_share_above_each_level(means: NDArray[np.float64], taus: list[float]) -> None:
    expected = [[(draw > tau).mean() for tau in taus] for draw in means]
    np.testing.assert_allclose(profile(means, np.array(taus)), expected, atol=1e-12)


def test_a_profile_by_hand() -> None:
    # Two trainings, three conditions: 1 2 3 and 2 4 6. Above 2: 3, 4, 6 of six. Above 6: none.
    means = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])
    np.testing.assert_allclose(profile(means, np.array([0.0, 1.0, 2.0, 5.0, 6.0])), [1, 5 / 6, 3 / 6, 1 / 6, 0])


@FIXED
@given(
    hnp.arrays(np.float64, st.integers(1, 7), elements=WHOLE), hnp.arrays(np.float64, st.integers(1, 7), elements=WHOLE)
)
def test_the_probability_of_improvement_is_mann_whitneys_u(x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    u = stats.mannwhitneyu(x, y, method="asymptotic").statistic
    assert probability_of_improvement(x[:, None], y[:, None]) == pytest.approx(u / (len(x) * len(y)))
    assert probability_of_improvement(y[:, None], x[:, None]) == pytest.approx(1 - u / (len(x) * len(y)))


def test_the_probability_of_improvement_averages_over_conditions() -> None:
    # First condition: 3 beats 1 and 2, 1 ties with 1 and loses to 2: (2 + 0.5) / 4. Second: always ahead. Third: never.
    first = np.array([[3.0, 9.0, 0.0], [1.0, 9.0, 0.0]])
    second = np.array([[1.0, 5.0, 1.0], [2.0, 5.0, 1.0]])
    assert probability_of_improvement(first, second) == pytest.approx((2.5 / 4 + 1 + 0) / 3)
    assert probability_of_improvement(first, first) == pytest.approx((0.5 + 0.5 + 0.5) / 3)
    batch = probability_of_improvement(np.stack([first, second]), np.stack([second, first]))
    assert batch.sum() == pytest.approx(1.0)


def test_normal_learners_improve_as_often_as_the_normal_law_says() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(1.0, 1.0, (400, 2)), rng.normal(0.0, 1.0, (400, 2))
    assert probability_of_improvement(x, y) == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.03)


@pytest.mark.parametrize("shared", [True, False])
def test_weighting_episodes_is_resampling_them(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast bootstrap of means gives what the gather of every episode gives, draw by draw, chunked or not."""
    groups = [np.random.default_rng(k).normal(size=(k + 2, 3, 6)) for k in range(2)]

    def of_episodes(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return x.mean((1, 3)) - y.mean((1, 3))

    def of_means(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        return x.mean(1) - y.mean(1)

    for limit in (4_000_000, 400):
        monkeypatch.setattr("offline_robust.evaluation.statistics._MAX_GATHER", limit)
        slow = bootstrap(groups, of_episodes, np.random.default_rng(7), draws=50, shared=shared)
        fast = bootstrap_means(groups, of_means, np.random.default_rng(7), draws=50, shared=shared)
        np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_learners_with_other_numbers_of_episodes_are_resampled_apart() -> None:
    few = table(np.random.default_rng(0).normal(size=(2, 3, 4)), "few")
    many = table(np.random.default_rng(1).normal(size=(2, 3, 9)), "many")
    frame = profiles(Results.concat([few, many]), draws=50)
    assert ((frame["low"] <= frame["high"]) & (frame["value"].between(0, 1))).all()


def test_the_iqm_has_a_training_under_a_condition_for_its_unit() -> None:
    # Means 0 10 / 20 30 whatever the episodes around them: the middle half of four numbers is 10 and 20.
    means = np.array([[0.0, 10.0], [20.0, 30.0]])
    returns = means[:, :, None] + np.array([-500.0, 0.0, 500.0])
    frame = iqms(table(returns, levels=[0.5, 1.0]))
    assert frame["value"].tolist() == [15.0]
    assert frame["trainings"].tolist() == [2]


def test_the_interval_of_the_iqm_covers_the_truth_only_if_a_training_is_drawn_whole() -> None:
    """Twelve trainings that differ, each through ten conditions; the true IQM is 0 by symmetry.

    Drawing trainings whole covers it nine times in ten. Drawing each condition's trainings on their own, as where each
    task has trainings of its own, takes one training for ten and covers it less than half of the time.
    """
    rng = np.random.default_rng(3)
    whole = apart = 0
    repeats = 200
    for _ in range(repeats):
        returns = rng.normal(size=(12, 1, 1)) + 0.2 * rng.normal(size=(12, 10, 4))
        (means,) = resampled_means([returns], rng, draws=200)
        low, high = interval(iqm(means.reshape(len(means), -1)))
        whole += bool(low <= 0 <= high)
        drawn = rng.integers(12, size=(200, 12, 10))
        low, high = interval(iqm(returns.mean(-1)[drawn, np.arange(10)].reshape(200, -1)))
        apart += bool(low <= 0 <= high)
    # 200 repeats: a standard error of 2 points at 90 %, 3.5 at 50 %.
    assert 0.84 <= whole / repeats <= 0.98
    assert apart / repeats <= 0.6


def test_improvement_is_told_for_both_orders() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(4, 3, 10))
    frame = improvement(both(base + 50.0, base), draws=100).set_index(["a", "b"])
    assert frame.loc[("a", "b")].tolist() == [1.0, 1.0, 1.0]
    assert frame.loc[("b", "a")].tolist() == [0.0, 0.0, 0.0]
    assert improvement(table(base)).empty


def test_the_leader_is_named_with_those_who_cannot_be_told_from_it() -> None:
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=(4, 3, 20))
    good = np.array([-1.0, -1.0, -1.0])[None, :, None] + noise
    same = good + 0.01 * rng.normal(size=(4, 3, 20))
    spiky = np.array([-9.0, 5.0, -9.0])[None, :, None] + noise
    results = Results.concat([table(x, n, [0.5, 1.0, 1.5]) for n, x in zip("abc", (good, same, spiky), strict=True)])
    frame = leaders(results).set_index("scope")
    nominal, swept, worst = frame.loc["nominal"], frame.loc["parameter"], frame.loc["worst"]
    assert (nominal["learner"], nominal["tied"]) == ("c", ())
    assert nominal["value"] == pytest.approx(5.0, abs=0.05)
    assert nominal["difference"] == pytest.approx(6.0, abs=0.1)
    assert nominal["difference_low"] > 5.5
    assert swept["label"] == "length"
    assert swept["conditions"] == 2
    assert swept["learner"] in "ab"
    assert swept["tied"] in (("a",), ("b",))
    assert swept["difference_low"] <= 0 <= swept["difference_high"]
    assert worst["learner"] in "ab"
    assert worst["value"] == pytest.approx(-1.0, abs=0.05)
    alone = leaders(table(good, "solo", [0.5, 1.0, 1.5]))
    assert set(alone["learner"]) == {"solo"}
    assert set(alone["next"]) == {""}


def test_several_datasets_are_put_together_on_named_scores_only_and_count_the_same() -> None:
    rng = np.random.default_rng(0)
    small = both(rng.normal(10, 1, (3, 3, 5)), rng.normal(0, 1, (3, 3, 5)))
    # Ten times the conditions and a hundred times the returns: neither may outweigh the first.
    large = both(rng.normal(1000, 1, (3, 30, 5)), rng.normal(3000, 1, (3, 30, 5)), levels=[0.1 * k for k in range(30)])
    with pytest.raises(EvaluationError, match="no score reference for large"):
        across({"small": small, "large": large}, {"small": ScoreReference("r", "x", 0, 10, "s")})
    scores = {
        "small": ScoreReference("r", "x", 0, 10, "s"),
        "large": ScoreReference("r", "y", 1000, 3000, "s"),
    }
    summary, curves = across({"small": small, "large": large}, scores, draws=200)
    suite = summary[summary["statistic"] == "suite"].set_index("learner")
    # a has scores of about 100 and 0, b of 0 and 100: the middle half of six numbers is around the middle.
    assert suite.loc["a", "value"] == pytest.approx(50, abs=8)
    assert suite.loc["b", "value"] == pytest.approx(50, abs=8)
    assert suite.loc["a", "parts"] == 2
    assert suite.loc["a", "trainings"] == 6
    assert set(summary["statistic"]) == {"suite"}, "the first has no nominal condition"
    middle = curves[(curves["tau"] > 30) & (curves["tau"] < 70)]
    np.testing.assert_allclose(middle["value"], 0.5)


def test_learners_of_other_conditions_are_not_ranked() -> None:
    results = Results.concat([table(np.zeros((1, 3, 2)), "a"), table(np.zeros((1, 2, 2)), "b")])
    with pytest.raises(EvaluationError, match="a and b were not evaluated under the same conditions"):
        leaders(results)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("constant", "trainings"), [(0.1, (5, 1)), (500.0, (5, 5)), (1.0, (10, 1))])
def test_equal_returns_are_ties_whatever_rounding_makes_of_their_mean(
    constant: float, trainings: tuple[int, int], shared: bool
) -> None:
    a, b = (np.full((count, 3, 13), constant) for count in trainings)
    tables = [table(a, "a"), table(b, "b")]
    if not shared:
        tables[1].frame["episode_seed"] += 100
    results = Results.concat(tables)
    rows = improvement(results, draws=200)
    assert rows[["value", "low", "high"]].to_numpy().tolist() == [[0.5, 0.5, 0.5]] * 2
    assert set(leaders(results, draws=200)["tied"]) == {("b",)}
    assert set(compare(results, "a", "b", draws=200)["favours"]) == {""}
    curves = profiles(results, draws=200)
    assert (curves["low"] == curves["value"]).all()
    assert (curves["high"] == curves["value"]).all()


def test_a_part_with_fewer_trainings_weighs_as_much_as_another() -> None:
    many, one = table(np.zeros((10, 2, 3))), table(np.full((1, 2, 3), 100.0))
    scores = {name: ScoreReference("r", "Pendulum-v1", 0, 100, "s") for name in ("many", "one")}
    summary, _ = across({"many": many, "one": one}, scores, draws=50)
    suite = summary[summary["statistic"] == "suite"]
    assert suite["value"].tolist() == pytest.approx([50.0])
    assert suite["trainings"].tolist() == [11]
