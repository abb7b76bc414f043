"""The KL worst case equals the golden tables, a convex solver, and the laws of coherent risk measures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from offline_robust.divergences import KL

# Test law A of the reference sheet: mean 3, min 1; rows are (delta, beta*, value, worst-case law), float64.
VALUES = torch.tensor([1.0, 2.0, 5.0, 10.0], dtype=torch.float64)
LAW = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
GOLDEN = [
    (1e-4, 193.505650, 2.961156, (0.404115, 0.301524, 0.197924, 0.096437)),
    (0.01, 17.979502, 2.624955, (0.442236, 0.313733, 0.177012, 0.067019)),
    (0.1, 4.432096, 1.929573, (0.545226, 0.326324, 0.110559, 0.017890)),
    (0.25, 1.982935, 1.488160, (0.656974, 0.297573, 0.043697, 0.001755)),
    (0.5, 0.758875, 1.175421, (0.830996, 0.166868, 0.002135, 0.000001)),
    (0.75, 0.356579, 1.043459, (0.956560, 0.043434, 0.000006, 0.0)),
    (0.9, 0.174384, 1.002419, (0.997581, 0.002419, 0.0, 0.0)),
    (0.92, 0.0, 1.0, (1.0, 0.0, 0.0, 0.0)),
]
# Three more laws with KL values: rmpo_ddrq 4.2 and 4.3.
OTHERS = [
    ((0.2, 0.3, 0.5), (0.0, 1.0, 2.0), 0.1, 0.940143, 1.829780),
    ((0.2, 0.3, 0.5), (0.0, 1.0, 2.0), 0.5, 0.494552, 0.775707),
    ((0.2,) * 5, (1.0, 2.0, 3.5, 4.0, 10.0), 0.1, 2.831626, 5.556784),
    ((0.2,) * 5, (1.0, 2.0, 3.5, 4.0, 10.0), 0.5, 1.749663, 1.462157),
    ((0.05, 0.15, 0.3, 0.5), (-10.0, 0.0, 1.0, 2.0), 0.1, -0.625733, 8.321888),
    ((0.05, 0.15, 0.3, 0.5), (-10.0, 0.0, 1.0, 2.0), 0.5, -2.961296, 4.654281),
]

finite_values = hnp.arrays(np.float64, st.integers(2, 12), elements=st.floats(-50, 50, width=32))
radii = st.floats(1e-4, 6.0)


@pytest.mark.parametrize(("delta", "beta", "value", "law"), GOLDEN)
def test_golden_table(delta: float, beta: float, value: float, law: tuple[float, ...]) -> None:
    found, dual = KL(delta).worst_case(VALUES, LAW)
    assert found.item() == pytest.approx(value, abs=5e-7)
    assert dual.item() == pytest.approx(beta, rel=1e-6, abs=1e-6)
    torch.testing.assert_close(KL(delta).worst_case_weights(VALUES, LAW), torch.tensor(law).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("law", "values", "delta", "value", "beta"), OTHERS)
def test_golden_values_of_skewed_laws(law, values, delta, value, beta) -> None:
    found, dual = KL(delta).worst_case(torch.tensor(values).double(), torch.tensor(law).double())
    assert found.item() == pytest.approx(value, abs=1e-6)
    assert dual.item() == pytest.approx(beta, rel=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_equals_a_generic_convex_solver(seed: int) -> None:
    """SLSQP on the primal problem over the simplex, from two starts."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(3, 7))
    law = rng.dirichlet(np.ones(size))
    values = rng.normal(size=size) * 10.0 ** rng.uniform(-1, 1)
    delta = float(rng.uniform(0.02, 0.9) * -np.log(law[values.argmin()]))

    def kl(q: np.ndarray) -> float:
        return float(np.sum(q * np.log(np.maximum(q, 1e-300) / law)))

    best = math.inf
    for start in (law, 0.5 * law + 0.5 * np.eye(size)[values.argmin()]):
        solved = minimize(
            lambda q: q @ values,
            start,
            jac=lambda q: values,
            bounds=[(1e-12, 1)] * size,
            constraints=[
                {"type": "eq", "fun": lambda q: q.sum() - 1},
                {"type": "ineq", "fun": lambda q: delta - kl(q), "jac": lambda q: -np.log(q / law) - 1},
            ],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 1000},
        )
        if abs(solved.x.sum() - 1) < 1e-9 and kl(solved.x) < delta + 1e-8:
            best = min(best, solved.fun)
    found, _ = KL(delta).worst_case(torch.from_numpy(values), torch.from_numpy(law))
    assert found.item() == pytest.approx(best, abs=1e-6 * max(1.0, float(np.ptp(values))))


@pytest.mark.parametrize(("delta", "value"), [(0.1, 2.105573), (0.5, 1.0), (1.0, 0.171573)])
def test_gaussian_closed_form_by_quadrature(delta: float, value: float) -> None:
    """V ~ N(3, 4): value mu - s sqrt(2 delta), beta* = s / sqrt(2 delta)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    values = torch.from_numpy(3.0 + 2.0 * nodes)
    found, beta = KL(delta, iterations=60).worst_case(values, torch.from_numpy(weights / weights.sum()))
    assert found.item() == pytest.approx(value, abs=1e-6)
    assert beta.item() == pytest.approx(2.0 / math.sqrt(2.0 * delta), rel=1e-6)


@settings(max_examples=150, deadline=None)
@given(finite_values, radii)
def test_primal_equals_dual(values: np.ndarray, delta: float) -> None:
    """The worst law lies in the ball, attains the value, and the dual objective at beta* gives it too."""
    v = torch.from_numpy(values)
    ball = KL(delta)
    value, beta = ball.worst_case(v)
    law = ball.worst_case_weights(v)
    spread = float(np.ptp(values)) + 1e-12
    kl = torch.special.xlogy(law, law * len(v)).sum().item()
    assert law.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert kl <= delta + 1e-7
    rounding = 1e-14 * float(np.abs(values).max())
    assert (law @ v).item() == pytest.approx(value.item(), abs=1e-9 * spread + rounding)
    if beta > 1e-9 * spread:
        assert ball.profile(v, beta).item() == pytest.approx(value.item(), abs=2e-6 * spread + rounding)


@settings(max_examples=150, deadline=None)
@given(finite_values, radii, st.floats(0.01, 100), st.floats(-100, 100))
def test_coherence(values: np.ndarray, delta: float, scale: float, shift: float) -> None:
    """Between min and mean, positively homogeneous, translation-equivariant, monotone, non-expansive."""
    v = torch.from_numpy(values)
    ball = KL(delta)
    value = ball.worst_case(v)[0].item()
    tolerance = 1e-6 * (float(np.ptp(values)) + float(np.abs(values).max()) + 1e-9)
    assert v.min().item() - tolerance <= value <= v.mean().item() + tolerance
    moved = ball.worst_case(v * scale + shift)[0].item()
    assert moved == pytest.approx(value * scale + shift, abs=tolerance * scale + 1e-9 * abs(shift))
    raised = v.clone()
    raised[0] += 1.0
    higher = ball.worst_case(raised)[0].item()
    assert value - 1e-6 - tolerance <= higher <= value + 1.0 + 1e-6 + tolerance


@settings(max_examples=60, deadline=None)
@given(finite_values)
def test_non_increasing_and_convex_in_the_radius(values: np.ndarray) -> None:
    v = torch.from_numpy(values)
    found = torch.stack([KL(delta).worst_case(v)[0] for delta in np.linspace(0.0, 3.0, 13)])
    tolerance = 1e-6 * (float(np.ptp(values)) + 1e-9)
    assert (found.diff() <= tolerance).all()
    assert (found.diff().diff() >= -2 * tolerance).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["normal", "heavy_left", "heavy_right", "two_clusters"])
def test_float32_agrees_with_float64_over_scales_and_radii(kind: str, scale: float) -> None:
    """To 5e-5 of the standard deviation at delta 1e-4 (float32 cancels there) and 2e-5 from 0.01 on."""
    x = torch.randn(64, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = {"normal": x, "heavy_left": -(x.abs() ** 3), "heavy_right": x.abs() ** 3, "two_clusters": (x > 2) + 1e-3 * x}[
        kind
    ]
    v = v * scale
    for delta in (1e-4, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 5.2):
        exact = KL(delta, iterations=200).worst_case(v)[0]
        double, single = KL(delta).worst_case(v)[0], KL(delta).worst_case(v.float())[0].double()
        assert ((double - exact).abs() / v.std(1)).max() < 1e-7
        assert ((single - exact).abs() / v.std(1)).max() < (5e-5 if delta < 0.01 else 2e-5)


def test_radius_zero_is_the_mean_and_saturation_the_minimum() -> None:
    v = torch.randn(5, 200, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(KL(0.0).worst_case(v)[0], v.mean(1))
    limit = KL(1.0).saturation_radius(1 / 200)
    assert limit == pytest.approx(5.298, abs=1e-3)
    value, beta = KL(limit + 1e-6).worst_case(v)
    torch.testing.assert_close(value, v.amin(1))
    assert (beta == 0.0).all()


@pytest.mark.parametrize("delta", [0.0, 0.3, 7.0])
def test_a_law_without_spread_has_no_worst_case(delta: float) -> None:
    v = torch.full((3, 50), 4.25)
    torch.testing.assert_close(KL(delta).worst_case(v)[0], torch.full((3,), 4.25))
    torch.testing.assert_close(KL(delta).worst_case(v[:, :1])[0], torch.full((3,), 4.25))


def test_gradient_is_the_worst_case_law() -> None:
    v = VALUES.clone().requires_grad_()
    KL(0.25).worst_case(v, LAW)[0].backward()
    torch.testing.assert_close(v.grad, KL(0.25).worst_case_weights(VALUES, LAW))


def test_profile_is_a_finite_lower_bound_everywhere() -> None:
    """f(g) <= sup f for any g > 0; identical samples give c - g delta, which catches a wrong log m."""
    generator = torch.Generator().manual_seed(2)
    v = (torch.rand(100, 64, generator=generator) * 2 - 1) * 1e4
    exact = KL(0.5).worst_case(v)[0]
    for dual in (1e-6, 1e-2, 1.0, 1e3, 1e6):
        g = torch.full((100,), dual, requires_grad=True)
        f = KL(0.5).profile(v, g)
        f.sum().backward()
        assert torch.isfinite(f).all()
        assert torch.isfinite(g.grad).all()
        assert (f <= exact + 2e-2).all()  # float32 at values of 1e4: spacing 1e-3, times the penalty's rounding
    same = KL(0.5).profile(torch.full((3, 200), 7.0), torch.full((3,), 2.0))
    torch.testing.assert_close(same, torch.full((3,), 7.0 - 2.0 * 0.5))


@pytest.mark.parametrize(("law", "values", "delta", "value", "beta"), OTHERS[:1] + OTHERS[-1:])
def test_linear_form_maximised_is_the_worst_case(law, values, delta, value, beta) -> None:
    """eta* = -lam log E exp(-x / lam) at lam = beta*; the mean of the linear form there is the value."""
    p, x = torch.tensor(law).double(), torch.tensor(values).double()
    lam = torch.tensor(beta).double()
    eta = -lam * (p * torch.exp(-x / lam)).sum().log()
    assert (p * KL(delta).linear_dual(x, eta, lam)).sum().item() == pytest.approx(value, abs=1e-5)
    for shifted in (eta + 0.1, eta - 0.1):
        assert (p * KL(delta).linear_dual(x, shifted, lam)).sum().item() < value


@pytest.mark.parametrize(
    ("delta", "fixed_point"), [(0.0, 1.818182), (0.05, 1.446961), (0.2, 1.212627), (0.5, 1.045336), (0.7, 1.0)]
)
def test_chain_fixed_points(delta: float, fixed_point: float) -> None:
    """Reward 1 in s0, which moves to s0 or the absorbing s1 by a coin; gamma 0.9 (dr_sac_rfqi 5.3)."""
    v = torch.zeros(2, dtype=torch.float64)
    reward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    law = torch.tensor([[0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)
    errors = []
    for _ in range(200):
        new = reward + 0.9 * KL(delta).worst_case(v.expand(2, 2), law)[0]
        errors.append((new - v).abs().max().item())
        v = new
    assert v[0].item() == pytest.approx(fixed_point, abs=1e-6)
    rates = [b / a for a, b in itertools.pairwise(errors) if a > 1e-9]
    assert max(rates) <= 0.9 + 1e-9


def test_values_without_weight_do_not_matter() -> None:
    values, law = torch.tensor([-1000.0, 1.0, 2.0, 5.0]), torch.tensor([0.0, 0.4, 0.3, 0.3])
    for delta in (0.0, 0.1, 5.0):
        with_it, without = KL(delta).worst_case(values, law)[0], KL(delta).worst_case(values[1:], law[1:])[0]
        torch.testing.assert_close(with_it, without, atol=1e-4, rtol=0)  # offset of 1000 in float32


def test_small_differences_of_large_values_survive_float32() -> None:
    values = 4096.0 + torch.arange(64) / 64.0  # exact in float32
    exact = KL(0.5).worst_case(values.double())[0]
    assert KL(0.5).worst_case(values)[0].item() == pytest.approx(exact.item(), abs=5e-4)  # float32 spacing at 4096


def test_linear_form_stays_a_lower_bound_far_from_its_optimum() -> None:
    """Weak duality must hold where the exponential would overflow, and the gradient must point back."""
    x = torch.zeros(1, dtype=torch.float64)
    eta = torch.tensor([1000.0], dtype=torch.float64, requires_grad=True)
    found = KL(0.1).linear_dual(x, eta, torch.tensor([1e-6], dtype=torch.float64))
    found.backward()
    assert found.item() < 0.0
    assert eta.grad.item() < 0.0


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="float32 or float64"):
        KL(0.5).worst_case(torch.tensor([1, 2, 3]))
