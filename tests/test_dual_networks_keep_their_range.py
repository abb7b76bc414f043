"""Dual networks: scale-aware start, positive where they must be, bounded, equal for all reward scales, and an alarm."""

from __future__ import annotations

import math

import pytest
import torch

from offline_robust.divergences import KL, TotalVariation
from offline_robust.networks import DualNetwork
from offline_robust.networks.dual import LOG_REACH, REAL_REACH


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(scale: float, shift: float, steps: int = 200) -> tuple[DualNetwork, torch.Tensor]:
    """A dual of total variation after some steps on values c X + b, and its eta at fixed inputs, in units of X."""
    dual = DualNetwork(("real",), 2, (16,), stream(0), start=(0.5,))
    optimiser = torch.optim.Adam(dual.parameters(), lr=3e-3)
    ball = TotalVariation(0.3, v_min=shift)
    draws = stream(1)
    for _ in range(steps):
        x = torch.randn(64, 2, generator=draws)
        values = scale * (3.0 + x[:, 0].tanh() + 0.3 * torch.rand(64, generator=draws)) + shift
        dual.observe(values)
        loss = dual.loss(ball.linear_dual(values, *dual(x)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fixed = torch.randn(32, 2, generator=stream(2))
    return dual, (dual(fixed)[0].detach() - shift) / scale


def test_it_starts_at_the_values_own_scale() -> None:
    values = 1000.0 + 50.0 * torch.randn(4000, generator=stream(0))
    dual = DualNetwork(("real", "positive"), 3, (32,), stream(1), start=(-0.5, -math.log(math.sqrt(2 * 0.5))))
    dual.observe(values)
    eta, beta = dual(torch.randn(100, 3, generator=stream(2)))
    assert eta.shape == beta.shape == (100,)
    # The last layer starts at a hundredth of the usual size.
    assert (eta - 975.0).abs().max() < 5.0
    assert (beta - 50.0).abs().max() < 5.0  # std / sqrt(2 delta), delta 0.5: KL's beta for Gaussian values


@pytest.mark.parametrize(("scale", "shift"), [(1e4, 0.0), (1e-2, 0.0), (1.0, 300.0)])
def test_what_is_learned_does_not_depend_on_the_scale_of_rewards(scale: float, shift: float) -> None:
    _, reference = trained(1.0, 0.0)
    _, found = trained(scale, shift)
    # Float32 at 300: 3e-5 a step, and Adam passes rounding on.
    torch.testing.assert_close(found, reference, atol=2e-2, rtol=0)


def test_duals_are_bounded_and_their_gradient_never_dies() -> None:
    dual = DualNetwork(("real", "positive"), 1, (4,), stream(0))
    dual.observe(torch.randn(100, generator=stream(1)))
    for push in (1e3, -1e3):
        with torch.no_grad():
            dual.network.linears[-1].bias.fill_(push)
        eta, beta = dual(torch.zeros(5, 1))
        assert ((eta - dual.mean).abs() <= REAL_REACH * dual.std * 1.001).all()
        assert ((beta / dual.std).log().abs() <= LOG_REACH * 1.001).all()
        assert (beta > 0).all()
        info = dual.info((eta, beta), torch.randn(5, generator=stream(2)))
        assert info["dual/saturated"] == info["dual/collapsed"] == 1.0
    with torch.no_grad():
        dual.network.linears[-1].bias.fill_(1.5 * REAL_REACH)
    (gradient,) = torch.autograd.grad(dual(torch.zeros(5, 1))[0].sum(), dual.network.linears[-1].bias)
    assert gradient[0].abs() > 1e-2  # a clamp would give 0


def test_a_collapsed_eta_is_told_apart_from_equal_values() -> None:
    """The failure of RFQI's released code (its issue 3): every eta at the fail state's value while values differ."""
    dual = DualNetwork(("real",), 1, (4,), stream(0))
    values = torch.linspace(1.0, 9.0, 50)
    dual.observe(values)
    (eta,) = dual(torch.zeros(50, 1))
    assert dual.info((eta,), values, 0.0)["dual/collapsed"] == 0.0
    dead = torch.zeros(50)
    info = dual.info((dead,), values, 0.0)
    assert (info["dual/collapsed"], info["dual/saturated"], info["dual/max"]) == (1.0, 1.0, 0.0)
    assert dual.info((dead,), torch.full((50,), 3.0), 0.0)["dual/collapsed"] == 0.0
    assert all(value.ndim == 0 for value in info.values())


def test_discrete_actions_have_an_output_each() -> None:
    dual = DualNetwork(("real", "positive"), 3, (16,), stream(0), actions=4)
    observations, actions = torch.randn(20, 3, generator=stream(1)), torch.arange(20) % 4
    dual.observe(torch.randn(20, generator=stream(2)))
    eta, scale = dual(observations, actions)
    table = dual.network(observations).view(20, 4, 2)
    for place, found in enumerate((eta, scale)):
        h = table[torch.arange(20), actions, place]
        bound = (REAL_REACH, LOG_REACH)[place]
        expected = bound * torch.tanh(h / bound)
        expected = dual.mean + dual.std * expected if place == 0 else dual.std * expected.exp()
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="discrete"):
        dual(observations)
    with pytest.raises(ValueError, match="discrete"):
        DualNetwork(("real",), 3, (4,), stream(0))(observations, actions)


def test_rows_without_weight_count_nowhere() -> None:
    values, weights = torch.tensor([1.0, 2.0, 3.0, 1e9]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    one, other = (DualNetwork(("real",), 1, (4,), stream(0)) for _ in range(2))
    one.observe(values, weights)
    other.observe(values[:3])
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.std, other.std)
    torch.testing.assert_close(one.loss(values, weights), other.loss(values[:3]))
    before = one.mean.clone()
    one.observe(values, torch.zeros(4))
    assert torch.equal(one.mean, before)
    assert torch.equal(one.seen, torch.tensor(1.0))


def test_beta_of_kl_is_learned_from_several_draws() -> None:
    """The several-sample form too: values N(0, x^2) given x; beta is |x| / sqrt(2 delta)."""
    draws = stream(0)
    dual = DualNetwork(("positive",), 1, (16,), stream(1))
    optimiser = torch.optim.Adam(dual.parameters(), lr=3e-3)
    for _ in range(600):
        x = 0.5 + 2.5 * torch.rand(64, 1, generator=draws)
        values = x * torch.randn(64, 200, generator=draws)
        dual.observe(values, spread=values.std(1).mean())
        loss = dual.loss(KL(0.25).profile(values, *dual(x)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x = torch.linspace(0.7, 2.8, 20).unsqueeze(1)
    ratio = dual(x)[0] / (x.squeeze(1) / math.sqrt(0.5))
    assert (ratio - 1.0).abs().mean() < 0.1  # 200 draws put beta a few per cent off the Gaussian's


def test_state_goes_out_and_in() -> None:
    dual, _ = trained(3.0, 1.0, 20)
    other = DualNetwork(("real",), 2, (16,), stream(9))
    other.load_state_dict(dual.state_dict())
    x = torch.randn(6, 2, generator=stream(3))
    assert torch.equal(dual(x)[0], other(x)[0])
    assert torch.equal(dual.seen, other.seen)
