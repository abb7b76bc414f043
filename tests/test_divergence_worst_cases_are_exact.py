"""Every ball's worst case equals the golden tables, generic solvers, and exact robust fixed points."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from divergence_cases import (
    FOUR,
    LAWS,
    A,
    B,
    C,
    balls,
    divergence_of,
    is_f_divergence,
    line_costs,
    tensors,
)
from scipy.optimize import linprog, minimize

from offline_robust.divergences import (
    KL,
    ChiSquare,
    Contamination,
    CressieRead,
    CVaR,
    TotalVariation,
    Wasserstein1,
)

# rmpo_ddrq 4.3: values for the laws A, B, C, and the dual variable where the table has it.
GOLDEN = [
    (KL(0.1), (0.940143, 2.831626, -0.625733), (1.829780, 5.556784, 8.321888)),
    (KL(0.5), (0.494552, 1.749663, -2.961296), (0.775707, 1.462157, 4.654281)),
    (CressieRead(1.5, 0.1), (0.945475, 2.771351, -0.477226), None),
    (CressieRead(2.0, 0.1), (0.950715, 2.697146, -0.354123), (3.046425, 11.114271, 6.570615)),
    (CressieRead(2.0, 0.5), (0.518975, 1.701352, -1.780698), (2.081025, 4.164413, 3.380698)),
    (CressieRead(4.0, 0.1), (0.973058, 2.453250, -0.045776), (None, 5.494664, None)),
    (CressieRead(4.0, 0.5), (0.618971, 1.857369, -0.787542), None),
    (ChiSquare(0.2), (0.950715, 2.697146, -0.354123), None),
    (TotalVariation(0.1), (1.1, 3.2, -0.4), None),
    (TotalVariation(0.3), (0.7, 2.0, -2.8), None),
    (CVaR(0.8), (1.125, 2.625, 0.5), None),
    (CVaR(0.5), (0.6, 1.9, -0.4), None),
    (Contamination(0.1), (1.17, 3.79, -0.28), None),
]
WASSERSTEIN = [(0.1, (1.2, 3.5, -0.2)), (0.5, (0.8, 2.5, -2.625))]
# rmpo_ddrq 4.5: in k at fixed rho, up or down or both.
ORDERS = [
    ("A", 0.5, (1.5, 2, 3, 4, 6, 10), (0.5068, 0.5190, 0.5581, 0.6190, 0.7378, 0.8925)),
    ("C", 0.5, (1.5, 2, 3, 4, 6, 10), (-2.291, -1.781, -1.144, -0.788, -0.386, -0.004)),
    ("B", 0.1, (1.5, 2, 3, 4, 6, 10), (2.7714, 2.6971, 2.5186, 2.4533, 2.4563, 2.5235)),
]
# dr_sac_rfqi 5.2, the law FOUR: rho, eta* (None where it is not unique), fail-state value, value on the support.
TOTAL_VARIATION = [
    (0.0, 10, 3.0, 3.0),
    (0.05, 10, 2.5, 2.55),
    (0.1, None, 2.0, 2.1),
    (0.2, 5, 1.5, 1.7),
    (0.3, None, 1.0, 1.3),
    (0.5, 2, 0.6, 1.1),
    (0.75, 1, 0.25, 1.0),
    (1.0, None, 0.0, 1.0),
]


@pytest.mark.parametrize(("ball", "expected", "duals"), GOLDEN, ids=lambda x: repr(x)[:24])
def test_golden_values_of_three_laws(ball, expected, duals) -> None:
    for place, law in enumerate(LAWS.values()):
        value, dual = ball.worst_case(*tensors(law))
        assert value.item() == pytest.approx(expected[place], abs=1e-6)
        if duals is not None and duals[place] is not None:
            assert dual.item() == pytest.approx(duals[place], rel=1e-6)


@pytest.mark.parametrize(("radius", "expected"), WASSERSTEIN)
def test_golden_values_of_wasserstein(radius, expected) -> None:
    for law, value in zip(LAWS.values(), expected, strict=True):
        found = Wasserstein1(radius, line_costs(len(law[0]))).worst_case(*tensors(law))[0]
        assert found.item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(("law", "rho", "orders", "expected"), ORDERS)
def test_golden_values_over_the_order(law, rho, orders, expected) -> None:
    """The worst case is not monotone in k at fixed radius: it rises for A and C, falls and rises for B."""
    found = [CressieRead(k, rho).worst_case(*tensors(LAWS[law]))[0].item() for k in orders]
    # The sheet rounds to its last digit.
    assert found == pytest.approx(expected, abs=6e-4 if law == "C" else 6e-5)


@pytest.mark.parametrize(("rho", "eta", "fail", "support"), TOTAL_VARIATION)
def test_golden_values_of_total_variation(rho, eta, fail, support) -> None:
    value, dual = TotalVariation(rho, v_min=0.0).worst_case(*tensors(FOUR))
    assert value.item() == pytest.approx(fail, abs=1e-12)
    assert eta is None or dual.item() == pytest.approx(eta)
    assert TotalVariation(rho).worst_case(*tensors(FOUR))[0].item() == pytest.approx(support, abs=1e-12)


def test_three_worked_cases_in_full() -> None:
    law = CressieRead(2.0, 0.1).worst_case_weights(*tensors(LAWS["A"]))
    torch.testing.assert_close(law, torch.tensor([0.348876, 0.351534, 0.299591]).double(), atol=1e-6, rtol=0)
    law = CressieRead(4.0, 0.1).worst_case_weights(*tensors(LAWS["B"]))
    expected = torch.tensor([0.296286, 0.272446, 0.225997, 0.205271, 0.0]).double()
    torch.testing.assert_close(law, expected, atol=1e-6, rtol=0)
    law = KL(0.5).worst_case_weights(*tensors(LAWS["C"]))
    expected = torch.tensor([0.374028, 0.130893, 0.211172, 0.283906]).double()
    torch.testing.assert_close(law, expected, atol=1e-6, rtol=0)


def test_order_to_one_is_the_kl_ball() -> None:
    """rmpo_ddrq 2.1: .945475, .942289, .940681, .940251 at k = 1.5, 1.2, 1.05, 1.01, and KL is .940143."""
    found = [CressieRead(k, 0.1).worst_case(*tensors(LAWS["A"]))[0].item() for k in (1.5, 1.2, 1.05, 1.01, 1.0001)]
    assert found == pytest.approx([0.945475, 0.942289, 0.940681, 0.940251, 0.940143], abs=2e-6)


def test_chi_square_is_twice_the_order_two_divergence_and_has_its_closed_form() -> None:
    """mean - sqrt(radius Var) while no point loses all its weight; the closed form would be wrong for B at rho .5."""
    for name, law in LAWS.items():
        values, p = tensors(law)
        for radius in (0.01, 0.2, 1.0, 3.0):
            found = ChiSquare(radius).worst_case(values, p)[0]
            torch.testing.assert_close(found, CressieRead(2.0, radius / 2).worst_case(values, p)[0])
            mean = (p * values).sum()
            std = (p * (values - mean).square()).sum().sqrt()
            closed = mean - math.sqrt(radius) * std
            if math.sqrt(radius) * (values.max() - mean) <= std:
                assert found.item() == pytest.approx(closed.item(), abs=1e-9)
            else:
                assert found > closed
        if name == "B":
            assert ChiSquare(1.0).worst_case(values, p)[0] > 1.7
    assert repr(ChiSquare(0.5)) == "ChiSquare(0.5)"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [1.5, 2.0, 4.0])
def test_f_divergences_equal_a_generic_convex_solver(k: float, seed: int) -> None:
    """SLSQP on the primal problem in likelihood ratios, from two starts; to 1e-6 of the range."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(3, 7))
    law = rng.dirichlet(np.ones(size)) * 0.8 + 0.2 / size
    values = rng.normal(size=size) * 10.0 ** rng.uniform(-1, 1)
    unit = (values - values.min()) / np.ptp(values)
    limit = CressieRead(k, 0.0).saturation_radius(law[values.argmin()])
    ball = CressieRead(k, float(rng.uniform(0.02, 0.9) * limit))
    best = math.inf
    for start in (np.ones(size), 0.7 + 0.3 * np.eye(size)[values.argmin()] / law):
        solved = minimize(
            lambda ratio: law @ (ratio * unit),
            start,
            jac=lambda ratio: law * unit,
            bounds=[(0, 1 / law.min())] * size,
            constraints=[
                {"type": "eq", "fun": lambda ratio: law @ ratio - 1, "jac": lambda ratio: law},
                {
                    "type": "ineq",
                    "fun": lambda ratio: ball.radius - divergence_of(ball, law * np.maximum(ratio, 0), law),
                    "jac": lambda ratio: -law * (np.maximum(ratio, 0) ** (k - 1) - 1) / (k - 1),
                },
            ],
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 2000},
        )
        feasible = divergence_of(ball, law * np.maximum(solved.x, 0), law) < ball.radius + 1e-7
        if feasible and abs(law @ solved.x - 1) < 1e-9:
            best = min(best, solved.fun)
    found = (ball.worst_case(torch.from_numpy(values), torch.from_numpy(law))[0].item() - values.min()) / np.ptp(values)
    assert found == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("k", [1.02, 1.5, 2.0, 3.0, 4.0, 8.0, 20.0, 100.0])
def test_cressie_read_of_every_order_has_a_certificate(k: float, dtype: torch.dtype) -> None:
    """A law in the ball whose mean equals the dual objective at the same time: nothing is worse, nothing is missed."""
    normal = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    laws = [tensors(law) for law in (A, B, C, FOUR)] + [(normal, torch.full((16,), 1 / 16, dtype=torch.float64))]
    eps = torch.finfo(dtype).eps
    for (values, law), rho in itertools.product(laws, (1e-3, 0.03, 0.2, 1.0, 5.0)):
        ball, unit = CressieRead(k, rho), float(values.amax() - values.amin())
        value, eta = ball.worst_case(values.to(dtype), law.to(dtype))
        worst = ball.worst_case_weights(values.to(dtype), law.to(dtype)).double()
        # Ratios are right to a few eps, their k-th powers to k times that; 1 / (k (k - 1)) is 49 for k = 1.02.
        assert cressie_read(k, worst, law) <= rho + 100 * eps * (1 + k * rho)
        assert float(value) == pytest.approx(float((worst * values).sum()), abs=8 * eps * unit)
        # eta, about 1 / ((k - 1) sqrt(2 rho)) ranges, cancels in its own dual objective.
        slack = 60 * eps * unit + 8 * eps * abs(float(eta))
        assert float(ball.profile(values, eta.double(), law)) >= float(value) - slack


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("k", "rho", "law", "expected"),
    [
        (2.0, 0.1, ((1.898e-11, 0.98502944, 1.472e-11, 0.01497056), (195.634, 808.4173, 69.4658, 3055.4764)), 808.4156),
        (2.0, 1e6, ((1e-7, 0.5, 0.5), (0.0, 1.0, 2.0)), 0.55279),
        (1.5, 2e3, ((1e-8, 0.5, 0.5), (0.0, 1.0, 2.0)), 0.71767),
        (1.02, 10.0, ((1e-8, 0.5, 0.5), (0.0, 1.0, 2.0)), 0.52025),
    ],
)
def test_points_of_tiny_weight_are_not_rounded_away(k, rho, law, expected, dtype) -> None:
    # Expected: float64, where the masses are far above rounding; within 1e-5 of the range.
    values, weights = (tensor.to(dtype) for tensor in tensors(law))
    unit = float(values.amax() - values.amin())
    assert float(CressieRead(k, rho).worst_case(values, weights)[0]) == pytest.approx(expected, abs=1e-5 * unit)


def test_duals_stay_finite_at_the_edges() -> None:
    values, law = (tensor.float() for tensor in tensors(FOUR))
    assert all(bool(torch.isfinite(dual)) for dual in CressieRead(1.02, 1e-3).linear_optimum(values, law))
    samples, dual = torch.tensor([0.0, 1.0, 2.0], requires_grad=True), torch.tensor(1e-25, requires_grad=True)
    CressieRead(2.0, 0.1).profile(samples, dual).backward()
    assert bool(torch.isfinite(torch.cat([samples.grad, dual.grad.view(1)])).all())
    ball = Wasserstein1(0.0, 1.0 - torch.eye(3))
    values = torch.tensor([0.0, 1.0, 5.0])
    assert float(ball.profile(values, ball.worst_case(values)[1])) == pytest.approx(2.0)  # no budget: the mean


def cressie_read(k: float, worst: torch.Tensor, law: torch.Tensor) -> float:
    """D_k(worst || law)."""
    ratio = worst / law
    return float((law * (ratio.pow(k) - k * ratio + k - 1)).sum() / (k * (k - 1)))


def linear_program(ball, values: np.ndarray, law: np.ndarray) -> float:
    """The primal as a linear program; a fail state is one more point of nominal weight zero."""
    v_min = getattr(ball, "v_min", None)
    if v_min is not None:
        values, law = np.append(values, v_min), np.append(law, 0.0)
    size = len(values)
    total = np.ones((1, size))
    if isinstance(ball, CVaR):
        return linprog(values, A_eq=total, b_eq=[1], bounds=[(0, p / ball.alpha) for p in law]).fun
    if isinstance(ball, Contamination):
        return linprog(values, A_eq=total, b_eq=[1], bounds=[((1 - ball.radius) * p, 1) for p in law]).fun
    if isinstance(ball, TotalVariation):  # q and the absolute changes
        eye = np.eye(size)
        above = np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, size)), np.ones((1, size))]])
        limit = np.concatenate([law, -law, [2 * ball.radius]])
        both = np.append(total, np.zeros((1, size)), axis=1)
        return linprog(np.append(values, np.zeros(size)), A_ub=above, b_ub=limit, A_eq=both, b_eq=[1]).fun
    plan_rows = np.kron(np.eye(size), np.ones(size))  # sum_j plan_ij = p_i
    costs = ball.costs.numpy().reshape(1, -1)
    return linprog(np.tile(values, size), A_ub=costs, b_ub=[ball.radius], A_eq=plan_rows, b_eq=law).fun


@pytest.mark.parametrize("seed", range(15))
def test_polyhedral_balls_equal_a_linear_program(seed: int) -> None:
    """Total variation and contamination with and without a fail state, CVaR, Wasserstein; to 1e-6 of the range."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 9))
    law = rng.dirichlet(np.ones(size))
    values = rng.normal(size=size) * 10.0 ** rng.uniform(-1, 1)
    if seed % 3 == 0:  # ties
        values = np.round(values)
    radius, span = float(rng.uniform(0, 1)), float(np.ptp(values)) + 1.0
    places = rng.normal(size=(size, 2))
    metric = np.linalg.norm(places[:, None] - places, axis=-1)
    lopsided = rng.uniform(0, 3, (size, size)) * (1 - np.eye(size)) * (rng.uniform(size=(size, size)) > 0.2)
    for ball in (
        TotalVariation(radius),
        TotalVariation(radius, v_min=float(values.min()) - 1.0),
        CVaR(max(radius, 1e-3)),
        Contamination(radius),
        Contamination(radius, v_min=float(values.min()) - 1.0),
        Wasserstein1(radius * metric.max(), torch.from_numpy(metric)),
        Wasserstein1(radius * 0.3, torch.from_numpy(lopsided)),
    ):
        found = ball.worst_case(torch.from_numpy(values), torch.from_numpy(law))[0].item()
        assert found == pytest.approx(linear_program(ball, values, law), abs=1e-6 * span), ball


def test_wasserstein_rows_may_have_costs_of_their_own_and_reach_points_without_weight() -> None:
    """A batch of 200 random problems at once equals the linear program of each; nominal laws are single points."""
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(200, 6)))
    costs = torch.from_numpy(rng.uniform(0.1, 1, (200, 6, 6)) * (1 - np.eye(6)))
    law = torch.eye(6).double()[torch.from_numpy(rng.integers(0, 6, 200))]
    ball = Wasserstein1(0.2, costs)
    found, lam = ball.worst_case(values, law)
    moved = ball.worst_case_weights(values, law)
    torch.testing.assert_close(moved.sum(1), torch.ones(200).double())
    torch.testing.assert_close((moved * values).sum(1), found)
    assert (found < (law * values).sum(1) - 1e-3).double().mean() > 0.5
    torch.testing.assert_close(ball.profile(values, lam, law), found)
    for row in range(0, 200, 10):
        exact = linear_program(Wasserstein1(0.2, costs[row]), values[row].numpy(), law[row].numpy())
        assert found[row].item() == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("ball", balls(6), ids=repr)
def test_the_worst_law_is_in_the_ball_and_attains_the_value(ball) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 6, generator=generator, dtype=torch.float64) * 3
    law = torch.rand(40, 6, generator=generator, dtype=torch.float64)
    law[:20, 2] = 0.0
    law = law / law.sum(1, keepdim=True)
    value, _ = ball.worst_case(values, law)
    worst = ball.worst_case_weights(values, law)
    lost = 1.0 - worst.sum(1)
    at_fail_state = 0.0 if getattr(ball, "v_min", None) is None else ball.v_min
    torch.testing.assert_close((worst * values).sum(1) + lost * at_fail_state, value)
    assert (worst >= 0.0).all()
    assert ((value >= values.amin(1) - 1e-9) | (lost > 0.1)).all()
    for row in range(40):
        q, p = worst[row].numpy(), law[row].numpy()
        if isinstance(ball, Wasserstein1):
            # On a line the Wasserstein-1 distance is the area between the distribution functions.
            assert np.abs(np.cumsum(q - p)).sum() <= ball.radius + 1e-9
            continue
        if at_fail_state:
            q, p = np.append(q, lost[row]), np.append(p, 0.0)
        else:
            assert (q[p == 0] == 0).all()
            assert q.sum() == pytest.approx(1.0, abs=1e-9)
        assert divergence_of(ball, q, p) <= ball.radius + 1e-7
        if is_f_divergence(ball) and q.max() < 1 - 1e-6:
            assert divergence_of(ball, q, p) == pytest.approx(ball.radius, abs=1e-6)


@pytest.mark.parametrize("ball", balls(5), ids=repr)
def test_gradient_is_the_worst_law(ball) -> None:
    """Envelope theorem, and against central differences where the law does not jump."""
    generator = torch.Generator().manual_seed(1)
    law = torch.rand(7, 5, generator=generator, dtype=torch.float64)
    law = law / law.sum(1, keepdim=True)
    values = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    ball.worst_case(values, law)[0].sum().backward()
    torch.testing.assert_close(values.grad, ball.worst_case_weights(values.detach(), law))
    for place in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[place] = 1e-6
        up, down = (ball.worst_case(values.detach() + sign * step, law)[0] for sign in (1, -1))
        torch.testing.assert_close((up - down) / 2e-6, values.grad[:, place], atol=1e-4, rtol=0)


# Saturation: radius from which the value is the minimum, for the laws A (p_min .2) and C (p_min .05); rmpo_ddrq 4.4.
SATURATION = [
    (KL, 1.609438, 2.995732),
    (lambda r: CressieRead(2.0, r), 2.0, 9.5),
    (lambda r: CressieRead(4.0, r), 10.333333, 666.583333),
    (lambda r: CressieRead(1.5, r), 1.648091, None),
    (ChiSquare, 4.0, 19.0),
    (TotalVariation, 0.8, 0.95),
    (lambda r: CVaR(1.0 / (1.0 + r)), 4.0, 19.0),
]


@pytest.mark.parametrize(("make", "at_a", "at_c"), SATURATION)
def test_the_minimum_is_reached_at_a_finite_radius(make, at_a, at_c) -> None:
    for name, expected, p_min in (("A", at_a, 0.2), ("C", at_c, 0.05)):
        values, law = tensors(LAWS[name])
        limit = make(0.1).saturation_radius(p_min)
        assert expected is None or limit == pytest.approx(expected, rel=1e-6)
        beyond = min(1.5 * limit, 1.0) if make is TotalVariation else 50 * limit
        for radius in (limit * (1 + 1e-9), beyond):
            found = make(radius).worst_case(values, law)[0].item()
            assert found == pytest.approx(values.min().item(), abs=1e-9)
        assert make(limit * 0.99).worst_case(values, law)[0] > values.min() + 1e-4
    values, law = tensors(LAWS["A"])
    assert CressieRead(2.0, 1.98).worst_case(values, law)[0].item() == pytest.approx(0.004013, abs=1e-6)


def test_small_radii_cost_the_standard_deviation() -> None:
    """mean - sqrt(2 rho) std + O(rho) for KL and every order (rmpo_ddrq 4.4)."""
    values, law = tensors(LAWS["C"])
    expected = {KL(1e-4): 0.763194, CressieRead(2.0, 1e-4): 0.763503, CressieRead(4.0, 1e-4): 0.764105}
    for ball, value in expected.items():
        assert ball.worst_case(values, law)[0].item() == pytest.approx(value, abs=1e-6)


def test_a_value_below_v_min_takes_the_fail_states_place() -> None:
    values, law = tensors(LAWS["C"])
    for kind in (TotalVariation, Contamination):
        torch.testing.assert_close(
            kind(0.3, v_min=-5.0).worst_case(values, law)[0], kind(0.3).worst_case(values, law)[0]
        )
        moved = kind(0.3, v_min=-5.0).worst_case_weights(values, law)
        assert moved.sum().item() == pytest.approx(1.0)


# dr_sac_rfqi 5.3, and the same fixed point, 1 / (1 - .9 x), for the other balls: x is the worst probability of s0.
CHAIN = [
    (KL(0.2), 1.212627),  # the other radii: test_kl_worst_case_is_exact.py
    (TotalVariation(0.1), 1.5625),
    (TotalVariation(0.3), 1.219512),
    (TotalVariation(0.5), 1.0),
    (TotalVariation(0.1, v_min=0.0), 1.5625),
    (ChiSquare(0.04), 1 / (1 - 0.9 * 0.4)),  # x = .5 - sqrt(chi2) / 2
    (CressieRead(2.0, 0.08), 1 / (1 - 0.9 * 0.3)),
    (CVaR(0.8), 1 / (1 - 0.9 * 0.375)),  # the other state gets at most .5 / .8
    (Contamination(0.2), 1 / (1 - 0.9 * 0.4)),  # x = .5 (1 - R)
    (Wasserstein1(0.2, line_costs(2)), 1 / (1 - 0.9 * 0.3)),  # unit distance: mass .2 moves
]


@pytest.mark.parametrize(("ball", "fixed_point"), CHAIN, ids=repr)
def test_chain_fixed_points(ball, fixed_point) -> None:
    """Reward 1 in s0, which moves to s0 or the absorbing s1 by a coin; gamma .9; geometric at rate .9 or better."""
    v = torch.zeros(2, dtype=torch.float64)
    reward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    law = torch.tensor([[0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)
    errors = []
    for _ in range(150):
        new = reward + 0.9 * ball.worst_case(v.expand(2, 2), law)[0]
        errors.append((new - v).abs().max().item())
        v = new
    assert v[0].item() == pytest.approx(fixed_point, abs=1e-6)
    assert max(b / a for a, b in itertools.pairwise(errors) if a > 1e-9) <= 0.9 + 1e-9


def test_inclusions_of_the_conversion_table() -> None:
    """What docs/algorithms/divergences.md calls a bound: the larger ball's value is not above the smaller's."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(300, 9, generator=generator, dtype=torch.float64)
    law = torch.rand(300, 9, generator=generator, dtype=torch.float64) ** 3
    law = law / law.sum(1, keepdim=True)
    for radius in (0.01, 0.1, 0.4, 0.9):
        within = [
            (ChiSquare(radius), KL(math.log1p(radius))),
            (KL(radius), TotalVariation(min(1.0, math.sqrt(radius / 2)))),
            (ChiSquare(radius), TotalVariation(min(1.0, 0.5 * math.sqrt(radius)))),
            (CVaR(1 - radius), KL(-math.log1p(-radius))),
            (CVaR(1 - radius), ChiSquare(radius / (1 - radius))),
            (CVaR(1 - radius), TotalVariation(radius)),
            (Contamination(radius), TotalVariation(radius)),
        ]
        for smaller, larger in within:
            gap = smaller.worst_case(values, law)[0] - larger.worst_case(values, law)[0]
            assert (gap >= -1e-9).all(), (smaller, larger)
    discrete = 1.0 - torch.eye(9).double()
    torch.testing.assert_close(  # exact: moving costs 1 however far
        Wasserstein1(0.3, discrete).worst_case(values, law)[0], TotalVariation(0.3).worst_case(values, law)[0]
    )
