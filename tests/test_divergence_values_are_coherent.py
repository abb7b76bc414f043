"""What makes a robust Bellman operator a contraction, for every ball; and floating point that keeps it so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from divergence_cases import KINDS, ball_of_radius, balls
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from offline_robust.divergences import KL, Contamination, CressieRead, CVaR, TotalVariation, Wasserstein1

finite_values = hnp.arrays(np.float64, st.integers(2, 10), elements=st.floats(-50, 50, width=32))
laws = st.integers(0, 2**32 - 1)
kinds = st.integers(0, KINDS - 1)
shares = st.floats(0.0, 1.0)


def law_of(seed: int, points: int) -> torch.Tensor:
    """Random probabilities, some of them zero."""
    rng = np.random.default_rng(seed)
    law = rng.dirichlet(np.ones(points)) * (rng.uniform(size=points) > 0.2)
    law[rng.integers(points)] += 0.05
    return torch.from_numpy(law / law.sum())


def has_fail_state(ball) -> bool:
    return getattr(ball, "v_min", None) is not None


@settings(max_examples=150, deadline=None)
@given(finite_values, laws, kinds, shares, st.floats(0.01, 100), st.floats(-100, 100))
def test_homogeneous_equivariant_and_between_minimum_and_mean(values, seed, kind, radius, scale, shift) -> None:
    v, law = torch.from_numpy(values), law_of(seed, len(values))
    ball = ball_of_radius(kind, radius, len(v))
    value = ball.worst_case(v, law)[0].item()
    tolerance = 1e-6 * (float(np.ptp(values)) + float(np.abs(values).max()) + 1e-9)
    assert value <= (law * v).sum().item() + tolerance
    if has_fail_state(ball):  # the fail state does not move along with the values
        assert value >= ball.v_min - tolerance
        return
    assert value >= v.min().item() - tolerance
    moved = ball.worst_case(v * scale + shift, law)[0].item()
    assert moved == pytest.approx(value * scale + shift, abs=tolerance * scale + 1e-9 * abs(shift))


@settings(max_examples=150, deadline=None)
@given(finite_values, laws, kinds, shares, st.integers(0, 9), st.floats(0, 20))
def test_monotone_and_non_expansive(values, seed, kind, radius, place, rise) -> None:
    v, law = torch.from_numpy(values), law_of(seed, len(values))
    ball = ball_of_radius(kind, radius, len(v))
    raised = v.clone()
    raised[place % len(v)] += rise
    before, after = (ball.worst_case(x, law)[0].item() for x in (v, raised))
    tolerance = 1e-6 * (float(np.ptp(values)) + rise + 1.0)
    assert before - tolerance <= after <= before + rise + tolerance


@settings(max_examples=60, deadline=None)
@given(finite_values, laws, kinds)
def test_non_increasing_and_convex_in_the_radius(values, seed, kind) -> None:
    v, law = torch.from_numpy(values), law_of(seed, len(values))
    found = torch.stack([ball_of_radius(kind, r, len(v)).worst_case(v, law)[0] for r in np.linspace(0.0, 1.0, 11)])
    tolerance = 1e-6 * (float(np.ptp(values)) + 1e-3)
    assert (found.diff() <= tolerance).all()
    assert (found.diff().diff() >= -2 * tolerance).all()


@settings(max_examples=60, deadline=None)
@given(finite_values, laws, kinds, shares)
def test_values_without_weight_do_not_matter(values, seed, kind, radius) -> None:
    """Except to Wasserstein, which may move mass to them."""
    v, law = torch.from_numpy(values), law_of(seed, len(values))
    ball = ball_of_radius(kind, radius, len(v))
    if isinstance(ball, Wasserstein1):
        return
    changed = torch.where(law > 0.0, v, torch.where(torch.arange(len(v)) % 2 == 0, math.nan, -1e9))
    for one, other in zip(ball.worst_case(v, law), ball.worst_case(changed, law), strict=True):
        if not math.isinf(one):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", range(KINDS))
def test_radius_zero_is_the_mean(kind: int) -> None:
    v = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ball_of_radius(kind, 0.0, 8).worst_case(v)[0], v.mean(1))


@pytest.mark.parametrize("kind", range(KINDS))
@pytest.mark.parametrize("radius", [0.0, 0.3, 1.0])
def test_a_law_without_spread_has_no_worst_case_but_a_fail_state(kind: int, radius: float) -> None:
    """Equal values, and a single point: what `needs_stochastic_nominal` warns of."""
    ball = ball_of_radius(kind, radius, 6)
    v = torch.full((3, 6), 4.25)
    expected = 4.25 + ball.radius * (ball.v_min - 4.25) if has_fail_state(ball) else 4.25
    torch.testing.assert_close(ball.worst_case(v)[0], torch.full((3,), expected))
    single = ball_of_radius(kind, radius, 1)
    torch.testing.assert_close(single.worst_case(v[:, :1])[0], torch.full((3,), expected))
    assert ball.needs_stochastic_nominal is not (has_fail_state(ball) or isinstance(ball, Wasserstein1))


@pytest.mark.parametrize("kind", range(KINDS))
def test_batches_equal_their_rows(kind: int) -> None:
    generator = torch.Generator().manual_seed(2)
    v = torch.randn(3, 4, 7, generator=generator, dtype=torch.float64)
    law = torch.rand(4, 7, generator=generator, dtype=torch.float64)
    law = law / law.sum(1, keepdim=True)
    ball = ball_of_radius(kind, 0.2, 7)
    value, dual = ball.worst_case(v, law)
    assert value.shape == dual.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            torch.testing.assert_close(ball.worst_case(v[i, j], law[j])[0], value[i, j])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["normal", "heavy_left", "heavy_right", "two_clusters", "far_away"])
def test_float32_agrees_with_float64_over_scales_and_radii(kind: str, scale: float) -> None:
    """To 1e-4 of the standard deviation and what float32 can hold of the result; the worst law stays a law."""
    x = torch.randn(32, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = {
        "normal": x,
        "heavy_left": -(x.abs() ** 3),
        "heavy_right": x.abs() ** 3,
        "two_clusters": (x > 1.5) + 1e-3 * x,
        "far_away": (x * 64).round() / 64 + 4096.0,
    }[kind]
    single = (v * scale).float()
    v = single.double()
    std, spacing = v.std(1), 3e-7  # a few units in the last place of the result
    costs = (torch.arange(60.0).unsqueeze(1) - torch.arange(60.0)).abs().double()
    some = [KL(r) for r in (0.01, 0.5, 3.0, 9.0)]
    some += [CressieRead(k, r) for k in (1.2, 1.5, 2.0, 4.0) for r in (0.0, 1e-3, 0.1, 2.0, 20.0, 1e4)]
    some += [TotalVariation(r) for r in (0.0, 1e-3, 0.3, 0.99, 1.0)] + [CVaR(a) for a in (1.0, 0.5, 0.01, 1e-4)]
    some += [TotalVariation(0.3, v_min=-1e9), Contamination(0.1), Contamination(0.1, v_min=-1e9)]
    some += [Wasserstein1(r, costs) for r in (0.0, 0.1, 3.0, 100.0)]
    for ball in some:
        exact, found = ball.worst_case(v)[0], ball.worst_case(single)[0].double()
        largest = 1e9 if has_fail_state(ball) else v.abs().amax(1)
        assert ((found - exact).abs() <= 1e-4 * std + spacing * largest).all(), ball
        law = ball.worst_case_weights(single)
        assert torch.isfinite(law).all()
        lost = ball.radius if has_fail_state(ball) else 0.0
        torch.testing.assert_close(law.sum(1), torch.full((32,), 1.0 - lost), atol=1e-5, rtol=0)


@pytest.mark.parametrize("ball", balls(3), ids=repr)
def test_wrong_input_is_refused_by_name(ball) -> None:
    with pytest.raises(TypeError, match="float32 or float64, not"):
        ball.worst_case(torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="at least one point"):
        ball.worst_case(torch.zeros(4, 0))
    with pytest.raises(ValueError, match="weights of shape"):
        ball.worst_case(torch.zeros(4, 3), torch.full((2,), 0.5))
