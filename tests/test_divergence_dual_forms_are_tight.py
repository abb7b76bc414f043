"""Dual forms never promise more than the worst case, reach it at their optimum, and can be learned from one draw."""

from __future__ import annotations

import pytest
import torch
from divergence_cases import LAWS, balls, standard_deviation, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from offline_robust.divergences import KL, ChiSquare, Contamination, CressieRead, CVaR, TotalVariation, Wasserstein1

LINEAR = [
    KL(0.1),
    KL(0.5),
    CressieRead(1.5, 0.1),
    CressieRead(2.0, 0.1),
    CressieRead(2.0, 0.5),
    CressieRead(4.0, 0.5),
    ChiSquare(0.4),
    TotalVariation(0.3, v_min=-20.0),
    CVaR(0.5),
    Contamination(0.3, v_min=-20.0),
]


def random_laws(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(60, 8, generator=generator, dtype=torch.float64) * 3
    law = torch.rand(60, 8, generator=generator, dtype=torch.float64) ** 2 + 1e-3
    law[::3, 1] = 0.0
    return values.to(dtype), (law / law.sum(1, keepdim=True)).to(dtype)


@pytest.mark.parametrize("ball", balls(8), ids=repr)
def test_profile_at_the_best_dual_is_the_worst_case(ball) -> None:
    values, law = random_laws()
    value, dual = ball.worst_case(values, law)
    if ball.profile_dual == "positive" and not isinstance(ball, Wasserstein1):
        dual = dual.clamp_min(1e-9)  # saturated rows: the dual is zero in the limit
    torch.testing.assert_close(ball.profile(values, dual, law), value, atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(balls(8)) - 1), st.floats(-30, 30))
def test_profile_is_a_lower_bound_with_finite_gradient_everywhere(place: int, dual: float) -> None:
    ball, (values, law) = balls(8)[place], random_laws(torch.float32)
    at = torch.full((60,), 2.0**dual if ball.profile_dual == "positive" else dual, requires_grad=True)
    found = ball.profile(values, at, law)
    if ball.profile_dual is not None:
        found.sum().backward()
        assert torch.isfinite(at.grad).all()
    assert torch.isfinite(found).all()
    exact = ball.worst_case(values, law)[0]
    assert (found <= exact + 1e-5 * (1.0 + exact.abs() + at.detach().abs())).all()


@pytest.mark.parametrize("ball", LINEAR, ids=repr)
def test_linear_form_at_the_best_duals_is_the_worst_case(ball) -> None:
    """To 1e-5 of the range, over random laws; and no other duals do better."""
    values, law = random_laws()
    duals = ball.linear_optimum(values, law)
    assert len(duals) == len(ball.linear_duals)
    exact = ball.worst_case(values, law)[0]
    mean = (law * ball.linear_dual(values, *(dual.unsqueeze(1) for dual in duals))).sum(1)
    torch.testing.assert_close(mean, exact, atol=1e-5 * 20, rtol=0)
    generator = torch.Generator().manual_seed(5)
    for size in (1e-3, 0.1, 3.0):
        other = [
            dual * torch.exp(size * torch.randn(60, generator=generator))
            if kind == "positive"
            else dual + size * torch.randn(60, generator=generator)
            for kind, dual in zip(ball.linear_duals, duals, strict=True)
        ]
        worse = (law * ball.linear_dual(values, *(dual.unsqueeze(1) for dual in other))).sum(1)
        assert (worse <= exact + 1e-9).all()


@pytest.mark.parametrize("ball", LINEAR, ids=repr)
def test_best_duals_lie_within_their_bounds(ball) -> None:
    values, law = random_laws()
    low, high = values.min().item(), values.max().item()
    bounds = ball.linear_bounds(low, high)
    assert len(bounds) == len(ball.linear_duals)
    for dual, (least, largest) in zip(ball.linear_optimum(values, law), bounds, strict=True):
        assert (dual >= least - 1e-9).all()
        assert (dual <= largest + 1e-9).all()


@pytest.mark.parametrize("ball", LINEAR, ids=repr)
def test_one_draw_at_a_time_learns_the_worst_case(ball) -> None:
    """Adam on the linear form of single draws, three laws side by side: within 0.02 standard deviations of exact.

    What is compared is the exact mean of the form at the duals learned, averaged over the last half of the steps.
    """
    generator = torch.Generator().manual_seed(6)
    stds, draws, exact, laws = [], [], [], []
    steps, batch = 1600, 128
    for law in LAWS.values():
        values, p = tensors(law)
        laws.append((values, p))
        stds.append(standard_deviation(values, p))
        exact.append(ball.worst_case(values, p)[0].item())
        draws.append(values[torch.multinomial(p, steps * batch, replacement=True, generator=generator)])
    unit, start = torch.tensor(stds), torch.stack([(p * values).sum() for values, p in laws]).float()
    x = torch.stack(draws).float().view(3, steps, batch)
    raw = [torch.zeros(3, requires_grad=True) for _ in ball.linear_duals]
    tails = [torch.zeros(3) for _ in raw]
    if raw:
        optimiser = torch.optim.Adam(raw, lr=0.02)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0 if step < steps // 2 else 0.1)
    for step in range(steps if raw else 0):
        # Duals in units of the values: a real one from the mean, a positive one as an exponential.
        duals = [
            unit * r.exp() if kind == "positive" else start + unit * r
            for kind, r in zip(ball.linear_duals, raw, strict=True)
        ]
        loss = -(ball.linear_dual(x[:, step], *(dual.unsqueeze(1) for dual in duals)).mean(1) / unit).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step >= steps // 2:
            for tail, r in zip(tails, raw, strict=True):
                tail += r.detach() / (steps - steps // 2)
    for place, (values, p) in enumerate(laws):
        duals = [
            (unit * r.exp() if kind == "positive" else start + unit * r)[place].double()
            for kind, r in zip(ball.linear_duals, tails, strict=True)
        ]
        learned = (p * ball.linear_dual(values, *duals)).sum().item()
        assert learned <= exact[place] + 1e-6
        assert learned == pytest.approx(exact[place], abs=0.02 * stds[place])


def test_the_papers_plug_in_is_another_ball() -> None:
    """eta - c (eta - x)_+ averaged over single draws is CVaR at level 1 / c, whatever k (rmpo_ddrq 0.6, 4.6)."""
    expected = {"A": 1.010051, "B": 2.444365, "C": 0.302944}
    ball = CressieRead(2.0, 0.5)
    for name, law in LAWS.items():
        found = CVaR(1.0 / ball.norm).worst_case(*tensors(law))[0].item()
        assert found == pytest.approx(expected[name], abs=1e-6)
        assert found > ball.worst_case(*tensors(law))[0].item()


def test_scale_of_the_order_two_form_is_the_short_falls_norm() -> None:
    """w* = Z_1^(1/k*): 1.913113 for A, k 2, rho .1; 1.160923 for B, k 4, rho .5 (rmpo_ddrq 4.6)."""
    eta, w = CressieRead(2.0, 0.1).linear_optimum(*tensors(LAWS["A"]))
    assert eta.item() == pytest.approx(3.046425, abs=1e-6)
    assert w.item() == pytest.approx(1.913113, abs=1e-6)
    assert CressieRead(4.0, 0.5).linear_optimum(*tensors(LAWS["B"]))[1].item() == pytest.approx(1.160923, abs=1e-6)
    eta, lam = KL(0.5).linear_optimum(*tensors(LAWS["C"]))
    assert (eta.item(), lam.item()) == pytest.approx((-0.634155, 4.654281), abs=1e-6)


@pytest.mark.parametrize("ball", LINEAR, ids=repr)
def test_far_from_the_optimum_the_form_and_its_gradient_are_finite(ball) -> None:
    """In float32, with duals at the ends of what a network may put out, and the gradient of eta points back."""
    x = torch.linspace(-5.0, 5.0, 11)
    for eta in (-1e4, 0.0, 1e4):
        for size in (1e-6, 1.0, 1e6):
            duals = [
                torch.tensor(size if kind == "positive" else eta, requires_grad=True) for kind in ball.linear_duals
            ]
            found = ball.linear_dual(x, *duals).mean()
            assert torch.isfinite(found)
            if not duals:
                continue
            found.backward()
            assert all(torch.isfinite(dual.grad) for dual in duals)
            if abs(eta) > 1.0 and (size == 1e-6 or len(duals) == 1):
                assert duals[0].grad * eta < 0.0


def test_forms_that_do_not_exist_are_refused_by_name() -> None:
    x = torch.zeros(3)
    for ball, word in (
        (TotalVariation(0.3), "v_min"),
        (Contamination(0.3), "v_min"),
        (Wasserstein1(0.3, torch.zeros(3, 3)), "c_transform"),
    ):
        assert ball.linear_duals is None
        with pytest.raises(ValueError, match=word):
            ball.linear_dual(x, x)
