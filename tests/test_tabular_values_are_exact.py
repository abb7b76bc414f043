"""Robust dynamic programming equals the golden tables, generic solvers, and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from divergence_cases import balls, divergence_of, line_costs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

import offline_robust as orl
from offline_robust.divergences import (
    KL,
    ChiSquare,
    Contamination,
    CressieRead,
    CVaR,
    TotalVariation,
    Wasserstein1,
)
from offline_robust.tabular import (
    american_put,
    cliffwalking,
    expected_returns,
    put_prices,
    random_mdp,
    robust_backward_induction,
    robust_bellman,
    robust_policy_evaluation,
    robust_value_iteration,
    three_state_chain,
    worst_transitions,
)

# rmpo_ddrq 3.1: Q of up, right, down, left at the start, discount .9, wind .5, reward of the state; the greedy action.
CLIFFWALKING = [
    (None, (1.800792, 2.015133, 0.939691, 1.715728), "right"),
    (CressieRead(2, 0.02), (1.064043, 1.189015, -0.009902, 0.873769), "right"),
    (CressieRead(2, 0.1), (-0.195878, -0.185033, -1.533289, -0.511500), "right"),
    (CressieRead(2, 0.2), (-1.388553, -1.458239, -2.882308, -1.744690), "up"),
    (CressieRead(2, 0.5), (-4.486997, -4.705204, -5.911553, -4.849155), "up"),
    (CressieRead(2, 1.0), (-8.163500, -8.302415, -9.000000, -8.317238), "up"),
    (CressieRead(2, 1.5), (-8.568403, -8.605289, -9.000000, -8.607882), "up"),
    (CressieRead(4, 0.5), (-2.468293, -2.633703, -4.189008, -2.873674), "up"),
    (CressieRead(4, 1.0), (-4.984286, -5.177204, -6.596166, -5.319209), "up"),
    (KL(0.1), (-0.390604, -0.387453, -1.663897, -0.710809), "right"),
    (KL(0.5), (-5.263074, -5.446658, -6.377714, -5.559650), "up"),
    (KL(1.0), (-8.489289, -8.620574, -9.000000, -8.627296), "up"),
]
ENTERING = [
    (None, 2.239037),
    (CressieRead(2, 0.5), -4.985552),
    (CressieRead(2, 1.5), -9.520448),
    (CressieRead(4, 1.0), -5.538095),
]
# V of all cells, k = 2, rho = .1.
TABLE = """.822667 1.156103 1.644569 2.222411  .615757 1.165462 2.023775 3.133659
-.185033 .646631 2.207972 5  -2.079781 -1.504443 -.388622 1.163105"""
# Plain return at winds .5 to .9, and mean steps to the goal.
EVALUATION = [
    (None, (4.21, 3.82, 3.21, 2.15, 0.04), (7.3, 9.2, 12.1, 16.7, 24.7)),
    (CressieRead(2, 0.5), (4.54, 4.22, 3.65, 2.56, 0.29), (11.3, None, None, None, 27.5)),
    (CressieRead(2, 1.0), (4.57, 4.26, 3.67, 2.48, 0.03), (20.1, None, None, None, None)),
    (CressieRead(4, 1.0), (4.57, 4.27, 3.71, 2.60, 0.24), (12.0, None, None, None, None)),
]
# rmpo_ddrq 3.2: V(95), V(100), V(105); the largest price at which exercising is best.
PUT = [
    (None, (5.026261, 2.282423, 1.055283), 94.8),
    (CressieRead(2, 0.1), (5, 0.691334, 0.050601), 98.9),
    (KL(0.1), (5, 0.703682, 0.053376), 98.9),
    (CressieRead(4, 0.5), (5, 0.064314, 0.000040), None),
    (CressieRead(2, 0.5), (5, 0, 0), 99.9),
    (CressieRead(2, 1.0), (5, 0, 0), 99.9),
]
STAGED_PUT = [
    (None, (5, 1.553978, 0.281386)),
    (CressieRead(2, 0.02), (5, 1.015582, None)),
    (CressieRead(2, 0.05), (5, 0.836399, None)),
    (CressieRead(2, 0.2), (5, 0.409554, None)),
    (CressieRead(2, 0.1), (5, 0.655010, 0.033814)),
    (KL(0.1), (5, 0.665460, 0.035339)),
]
SCRIPT_PUT = [
    (None, (2.875, 1.875, 0.9125)),
    (KL(0.1), (2, 0.723118, 0.232886)),
    (CressieRead(2, 0.1), (2, 0.711547, 0.226035)),
    (CressieRead(2, 0.5), (2, 0, 0)),
]
START = 8


def solved(mdp, ball=None, **options):
    return robust_value_iteration(mdp.transitions, mdp.rewards, mdp.discount, ball, **options)


@pytest.mark.parametrize(("ball", "expected", "greedy"), CLIFFWALKING, ids=lambda x: repr(x)[:20])
def test_cliffwalking_has_its_golden_values_and_goes_up_at_large_radii(ball, expected, greedy) -> None:
    mdp = cliffwalking()
    found = solved(mdp, ball)
    assert found.q[START] == pytest.approx(expected, abs=6e-7)
    assert mdp.action_names[found.policy[START]] == greedy
    assert found.error_bound <= 1e-10


def test_cliffwalking_has_its_golden_values_everywhere_and_when_rewards_are_of_entering() -> None:
    expected = [float(x) for x in TABLE.split()]
    assert solved(cliffwalking(), CressieRead(2, 0.1)).v[:16] == pytest.approx(expected, abs=6e-7)
    for ball, value in ENTERING:
        assert solved(cliffwalking(reward="entering"), ball).v[START] == pytest.approx(value, abs=6e-7)


def test_robust_policies_walk_further_and_earn_more_under_more_wind() -> None:
    for ball, returns, steps in EVALUATION:
        policy = solved(cliffwalking(reward="entering"), ball).policy
        for wind, expected, length in zip((0.5, 0.6, 0.7, 0.8, 0.9), returns, steps, strict=True):
            found = expected_returns(cliffwalking(wind, reward="entering"), policy)
            assert found.start_return == pytest.approx(expected, abs=6e-3)
            assert length is None or found.start_steps == pytest.approx(length, abs=0.06)
    plain, robust = (
        [expected_returns(cliffwalking(wind, water_ends=True), policy).start_return for wind in (0.5, 0.9)]
        for policy in (solved(cliffwalking(water_ends=True), ball).policy for ball in (None, CressieRead(2, 0.5)))
    )
    assert plain == pytest.approx([2.84, 0.80], abs=6e-3)
    assert robust == pytest.approx([3.53, 0.93], abs=6e-3)


@pytest.mark.parametrize(("ball", "expected", "threshold"), PUT, ids=lambda x: repr(x)[:20])
def test_the_put_without_an_end_has_its_golden_values(ball, expected, threshold) -> None:
    mdp, prices = american_put(), put_prices()
    assert mdp.states == 602
    found = solved(mdp, ball)
    assert found.v[[150, 200, 250]] == pytest.approx(expected, abs=6e-7)
    exercised = prices[found.policy[:-1] == 1].max()
    assert threshold is None or exercised == pytest.approx(threshold)


@pytest.mark.parametrize(("ball", "expected"), STAGED_PUT, ids=lambda x: repr(x)[:20])
def test_the_put_of_five_stages_has_its_golden_values_both_ways(ball, expected) -> None:
    once, payoff = american_put(), np.append(np.maximum(0.0, 100.0 - put_prices()), 0.0)
    staged = robust_backward_induction(once.transitions, once.rewards, 0.95, ball, stages=5, final=payoff)
    for place, value in zip((150, 200, 250), expected, strict=True):
        assert value is None or staged.v[0, place] == pytest.approx(value, abs=6e-7)
    unrolled = solved(american_put(stages=5), ball)
    assert unrolled.v[:601] == pytest.approx(staged.v[0, :601], abs=1e-9)
    assert staged.q.shape == (5, 602, 2)
    assert staged.v.shape == (6, 602)


def test_the_put_of_the_papers_predecessor_has_its_golden_values() -> None:
    mdp = american_put(decimals=2)
    payoff = np.append(np.maximum(0.0, 100.0 - put_prices(decimals=2)), 0.0)
    for ball, expected in SCRIPT_PUT:
        found = robust_backward_induction(mdp.transitions, mdp.rewards, 1, ball, stages=5, final=payoff)
        assert found.v[0, [1800, 2000, 2200]] == pytest.approx(expected, abs=6e-7)


def test_stage_policies_of_the_put_earn_what_the_table_says() -> None:
    expected = {
        None: (3.155, 2.095, 1.193),
        CressieRead(2, 0.05): (2.266, 1.819, 1.445),
        CressieRead(2, 0.2): (1.902, 1.642, 1.422),
    }
    for ball, payoffs in expected.items():
        policy = solved(american_put(stages=5), ball).policy
        for p_up, payoff in zip((0.3, 0.5, 0.7), payoffs, strict=True):
            found = expected_returns(american_put(p_up, stages=5), policy)
            assert found.start_return == pytest.approx(payoff, abs=6e-4)


def test_the_chain_is_worth_the_risk_up_to_its_closed_radius() -> None:
    chain = three_state_chain()
    for radius in (0.0, 0.1, 0.24, 0.25, 0.5):
        found = solved(chain, TotalVariation(radius))
        assert found.q[0, 1] == pytest.approx(9.0 * (0.8 - radius))
        assert found.policy[0] == (0.8 - radius > 0.5 / 0.9)
    found = solved(chain, ChiSquare(0.04))
    assert found.q[0, 1] == pytest.approx(9.0 * (0.8 - 0.2 * 0.4))
    assert solved(chain, KL(1.5)).q[0, 1] > 1e-3
    # 1.6094 = -log P(lost): from there the ball holds the certain loss.
    assert solved(chain, KL(1.61)).q[0, 1] == 0.0


@pytest.mark.parametrize("ball", [*balls(3), None], ids=repr)
def test_values_equal_brute_force(ball) -> None:
    """A generic solver, asked for every worst law by itself, finds the same fixed point."""
    mdp = random_mdp(4, 2, 3, seed=3)
    found = solved(mdp, ball)
    after, law = mdp.transitions
    for s, a in itertools.product(range(4), range(2)):
        expected = mdp.rewards[s, a] + 0.9 * brute_force(ball, found.v[after[s, a]], law[s, a])
        assert found.q[s, a] == pytest.approx(expected, abs=1e-5)
    assert (found.v == found.q.max(1)).all()
    assert (found.policy == found.q.argmax(1)).all()


def brute_force(ball, values, law):
    """The least expectation in the ball: a linear program where it is one, else SLSQP in likelihood ratios."""
    size = len(values)
    if ball is None:
        return law @ values
    if isinstance(ball, Wasserstein1):
        costs = ball.costs.numpy().reshape(1, -1)
        rows = np.kron(np.eye(size), np.ones(size))
        return linprog(np.tile(values, size), A_ub=costs, b_ub=[ball.radius], A_eq=rows, b_eq=law).fun
    v_min = getattr(ball, "v_min", None)
    if isinstance(ball, CVaR):
        return linprog(values, A_eq=np.ones((1, size)), b_eq=[1], bounds=[(0, p / ball.alpha) for p in law]).fun
    if isinstance(ball, Contamination):
        floor = values.min() if v_min is None else v_min
        return (1 - ball.radius) * law @ values + ball.radius * floor
    if isinstance(ball, TotalVariation):
        points, nominal = (values, law) if v_min is None else (np.append(values, v_min), np.append(law, 0.0))
        count = len(points)
        eye = np.eye(count)
        above = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, count)), np.ones((1, count))]])
        total = np.append(np.ones((1, count)), np.zeros((1, count)), axis=1)
        limit = np.concatenate([nominal, -nominal, [2 * ball.radius]])
        return linprog(np.append(points, np.zeros(count)), A_ub=above, b_ub=limit, A_eq=total, b_eq=[1]).fun
    if np.ptp(values) < 1e-12:
        return values[0]
    unit = (values - values.min()) / np.ptp(values)
    solution = minimize(
        lambda ratio: law @ (ratio * unit),
        np.ones(size),
        bounds=[(0, 1 / law.min())] * size,
        constraints=[
            {"type": "eq", "fun": lambda ratio: law @ ratio - 1},
            {"type": "ineq", "fun": lambda ratio: ball.radius - divergence_of(ball, law * np.maximum(ratio, 0), law)},
        ],
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return values.min() + np.ptp(values) * solution.fun


@pytest.mark.parametrize("ball", balls(4), ids=repr)
def test_successors_without_weight_count_nowhere_in_any_form(ball) -> None:
    """Dense, as successors, and with fillers that point at the best and worst state; not Wasserstein's business."""
    mdp = random_mdp(9, 3, 4, seed=1, discount=0.5)
    after, law = mdp.transitions
    expected = solved(mdp, ball).q
    if isinstance(ball, Wasserstein1):
        return
    fillers = np.broadcast_to([0, 8, 8], (9, 3, 3))
    wide = (np.concatenate([fillers, after], -1), np.concatenate([np.zeros((9, 3, 3)), law], -1))
    for form in (mdp.transitions.dense, tuple(torch.from_numpy(part) for part in wide)):
        assert robust_value_iteration(form, mdp.rewards, 0.5, ball).q == pytest.approx(expected, abs=1e-9)


def test_rewards_take_three_forms() -> None:
    mdp = random_mdp(6, 2, 3, seed=2)
    dense, ball = mdp.transitions.dense, ChiSquare(0.3)
    state = np.arange(6.0)
    of_state = robust_value_iteration(dense, state, 0.9, ball)
    of_pair = robust_value_iteration(dense, np.repeat(state[:, None], 2, 1), 0.9, ball)
    assert of_state.q == pytest.approx(of_pair.q)
    # Paid on entering: one step earlier, so the values without the first state's own, over the discount.
    entered = robust_value_iteration(dense, np.broadcast_to(state, (6, 2, 6)), 0.9, ball)
    listed = robust_value_iteration(mdp.transitions, state[mdp.transitions.successors], 0.9, ball)
    assert entered.v == pytest.approx((of_state.v - state) / 0.9)
    assert listed.v == pytest.approx(entered.v)


def test_wasserstein_moves_mass_to_any_state_by_a_metric() -> None:
    mdp = random_mdp(5, 2, 2, seed=0)
    unreached = Wasserstein1(0.4, line_costs(5))
    found = solved(mdp, unreached)
    for s, a in itertools.product(range(5), range(2)):
        expected = mdp.rewards[s, a] + 0.9 * brute_force(unreached, found.v, mdp.transitions.dense[s, a])
        assert found.q[s, a] == pytest.approx(expected, abs=1e-6)
    with_discrete = solved(mdp, Wasserstein1(0.3, 1.0 - torch.eye(5)))
    assert with_discrete.q == pytest.approx(solved(mdp, TotalVariation(0.3), everywhere=True).q)


def test_contamination_everywhere_reaches_the_worst_state_of_all() -> None:
    mdp = random_mdp(8, 2, 3, seed=5)
    found = solved(mdp, Contamination(0.2), everywhere=True)
    expected = mdp.rewards + 0.9 * (0.8 * mdp.transitions.dense @ found.v + 0.2 * found.v.min())
    assert found.q == pytest.approx(expected)
    assert (found.v < solved(mdp, Contamination(0.2)).v).all()


@pytest.mark.parametrize(
    "ball", [KL(0.3), TotalVariation(0.2), TotalVariation(0.2, v_min=-20.0), Contamination(0.1, v_min=-20.0)], ids=repr
)
def test_nothing_takes_mass_out_of_an_end(ball) -> None:
    """A fail state, or the worst state of all, is reached from where something follows only."""
    mdp = cliffwalking()
    found = solved(mdp, ball, terminal=mdp.terminal)
    assert (found.q[16] == 0.0).all()
    if getattr(ball, "v_min", None) is not None:
        assert (solved(mdp, ball).q[16] < -1.0).all()
    else:
        assert found.q == pytest.approx(solved(mdp, ball).q, abs=1e-9)


@pytest.mark.parametrize("ball", balls(4), ids=repr)
def test_the_operator_contracts_and_what_is_found_is_its_fixed_point(ball) -> None:
    mdp = random_mdp(12, 3, 4, seed=4)
    v, w = np.random.default_rng(0).normal(size=(2, 12)) * 5
    one, other = (robust_bellman(mdp.transitions, mdp.rewards, 0.9, ball, values).max(1) for values in (v, w))
    assert abs(one - other).max() <= 0.9 * abs(v - w).max() + 1e-12
    found = solved(mdp, ball)
    again = robust_bellman(mdp.transitions, mdp.rewards, 0.9, ball, found.v)
    # The fixed point is unique, and no further than this residual over 1 - discount.
    assert abs(again.max(1) - found.v).max() < 1e-11
    assert found.sweeps < 15


def test_plain_sweeps_end_where_the_held_laws_lead() -> None:
    mdp, ball = random_mdp(12, 3, 4, seed=4), TotalVariation(0.25)
    v = np.zeros(12)
    errors = []
    expected = solved(mdp, ball).v
    for _ in range(100):
        v = robust_bellman(mdp.transitions, mdp.rewards, 0.9, ball, v).max(1)
        errors.append(abs(v - expected).max())
    assert errors[-1] < 1e-3
    assert max(b / a for a, b in itertools.pairwise(errors)) <= 0.9 + 1e-6


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), low=st.floats(0.0, 1.0), more=st.floats(0.0, 1.0), kind=st.integers(0, 6))
def test_values_never_rise_with_the_radius(seed: int, low: float, more: float, kind: int) -> None:
    make = (
        KL,
        lambda r: CressieRead(1.5, r),
        lambda r: CressieRead(4.0, r),
        ChiSquare,
        lambda r: TotalVariation(min(r, 1.0)),
        lambda r: Contamination(min(r, 1.0)),
        lambda r: CVaR(1.0 / (1.0 + r)),
    )[kind]
    mdp = random_mdp(5, 2, 3, seed=seed)
    plain, small, large = (solved(mdp, ball, tolerance=1e-8).q for ball in (None, make(low), make(low + more)))
    assert (large <= small + 2e-8).all()
    assert (small <= plain + 2e-8).all()


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-20, 20), scale=st.floats(0.01, 100), kind=st.integers(0, 10))
def test_rewards_shifted_and_scaled_shift_and_scale_the_values(seed, shift, scale, kind) -> None:
    ball = balls(3)[kind]
    if getattr(ball, "v_min", None) is not None:  # a value in the rewards' own units
        return
    mdp = random_mdp(4, 2, 3, seed=seed, discount=0.8)
    moved = robust_value_iteration(mdp.transitions, shift + scale * mdp.rewards, 0.8, ball)
    assert moved.q == pytest.approx(5.0 * shift + scale * solved(mdp, ball).q, abs=1e-7, rel=1e-7)


def test_values_saturate_at_a_finite_radius() -> None:
    """From the radius of the least likely worst successor on every pair expects its worst one."""
    mdp = random_mdp(6, 2, 3, seed=7)
    after, law = mdp.transitions
    v = np.zeros(6)
    for _ in range(400):
        v = (mdp.rewards + 0.9 * v[after].min(-1)).max(1)
    for make in (KL, lambda r: CressieRead(2, r), lambda r: CressieRead(4, r), TotalVariation):
        limit = make(0.1).saturation_radius(float(law.min()))
        assert solved(mdp, make(limit * (1 + 1e-9))).v == pytest.approx(v, abs=1e-8)
    assert (solved(mdp, KL(0.1)).v > v + 1e-2).all()


@pytest.mark.parametrize("ball", [KL(0.2), CressieRead(2, 0.3), TotalVariation(0.2, v_min=-3.0)], ids=repr)
def test_a_policy_is_worth_no_more_than_the_best_and_its_worst_laws_agree(ball) -> None:
    mdp = random_mdp(7, 3, 4, seed=8)
    best = solved(mdp, ball)
    assert robust_policy_evaluation(mdp.transitions, mdp.rewards, 0.9, ball, best.policy).v == pytest.approx(best.v)
    mixed = robust_policy_evaluation(mdp.transitions, mdp.rewards, 0.9, ball, np.full((7, 3), 1 / 3))
    assert (mixed.v < best.v).all()
    assert mixed.v == pytest.approx(mixed.q.mean(1), abs=1e-9)
    if getattr(ball, "v_min", None) is None:
        worst = worst_transitions(mdp.transitions, mdp.rewards, 0.9, ball, mixed.v)
        plain = robust_policy_evaluation(worst, mdp.rewards, 0.9, None, np.full((7, 3), 1 / 3))
        assert plain.v == pytest.approx(mixed.v, abs=1e-8)


def test_an_episode_that_may_never_end_has_no_plain_return() -> None:
    calm = cliffwalking(0.0)
    stuck = expected_returns(calm, np.full(17, 3))  # left, against the wall
    assert math.isnan(stuck.start_return)
    assert stuck.start_steps == math.inf
    assert stuck.returns[11] == 5.0  # the goal pays and ends
    assert expected_returns(calm, np.full(17, 3), discount=0.9).start_return == 0.0
    assert expected_returns(calm, solved(calm).policy).start_steps == 4.0


def test_the_room_opens_from_the_top() -> None:
    chain = orl.tabular.three_state_chain()
    found = orl.tabular.robust_value_iteration(
        chain.transitions.dense, chain.rewards, 0.9, orl.divergences.CressieRead(2, 0.5)
    )
    assert found.q.shape == (3, 2)
    assert found.sweeps > 0
