"""Balls by name, what they refuse, and the first-order Wasserstein ball of a state space."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from divergence_cases import LAWS, tensors

from offline_robust.divergences import (
    DIVERGENCES,
    KL,
    ChiSquare,
    Contamination,
    CressieRead,
    CVaR,
    GradientWasserstein,
    TotalVariation,
    Wasserstein1,
    make,
    parse,
)
from offline_robust.errors import ConfigError
from offline_robust.networks import MLP

EXAMPLES = {
    "kl": ({"radius": 0.5}, KL(0.5), "kl radius=0.5"),
    "cressie_read": ({"k": 4.0, "radius": 0.1}, CressieRead(4.0, 0.1), "cressie_read k=4 radius=0.1"),
    "chi2": ({"radius": 0.2}, ChiSquare(0.2), "chi2 radius=0.2"),
    "tv": ({"radius": 0.3, "v_min": -20.0}, TotalVariation(0.3, v_min=-20.0), "tv radius=0.3 v_min=-20"),
    "cvar": ({"alpha": 0.5}, CVaR(0.5), "cvar alpha=0.5"),
    "contamination": ({"radius": 0.1}, Contamination(0.1), "contamination radius=0.1"),
}


def test_every_name_has_an_example() -> None:
    assert EXAMPLES.keys() | {"wasserstein1", "wasserstein_gradient"} == DIVERGENCES.keys()


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_ball_by_name_is_the_ball(name: str) -> None:
    parameters, ball, label = EXAMPLES[name]
    made = make(name, **parameters)
    assert repr(made) == repr(ball)
    for law in LAWS.values():
        assert made.worst_case(*tensors(law))[0] == ball.worst_case(*tensors(law))[0]
    config = parse({"name": name, **parameters})
    assert config.label == label
    assert parse(config.model_dump()) == config
    assert parse(config) is config


def test_wasserstein_by_name() -> None:
    made = make("wasserstein1", radius=0.5, costs=[[0, 1, 2], [1, 0, 1], [2, 1, 0]])
    assert made.worst_case(*tensors(LAWS["A"]))[0].item() == pytest.approx(0.8)
    assert repr(make("wasserstein_gradient", radius=0.1)) == "GradientWasserstein(0.1, norm=l2)"


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("ch2", {"radius": 1.0}, ["unknown divergence 'ch2'", "did you mean 'chi2'"]),
        ("renyi", {"radius": 1.0}, ["unknown divergence 'renyi'", "known: chi2"]),
        ("tv", {"radius": 1.5}, ["tv: radius", "less than or equal to 1", "1.5"]),
        ("tv", {"radius": 0.5, "vmin": 0.0}, ["tv: unknown parameter 'vmin'", "'v_min'"]),
        ("kl", {}, ["kl: radius: missing"]),
        ("kl", {"radius": math.inf}, ["kl: radius", "finite"]),
        ("cressie_read", {"k": 1.0, "radius": 1.0}, ["cressie_read: k", "greater than 1"]),
        ("cvar", {"alpha": 0.0}, ["cvar: alpha", "greater than 0"]),
        ("wasserstein1", {"radius": 1.0}, ["wasserstein1: costs: missing"]),
        ("wasserstein1", {"radius": 1.0, "costs": [[0, 1]]}, ["square matrix"]),
    ],
)
def test_what_is_wrong_with_a_name_is_one_line(name, parameters, words) -> None:
    with pytest.raises(ConfigError) as caught:
        make(name, **parameters)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_divergence_that_is_no_mapping_is_refused() -> None:
    for values in ("chi2", {"radius": 1.0}, 3, ["chi2"]):
        with pytest.raises(ConfigError, match="a mapping with a name"):
            parse(values)


@pytest.mark.parametrize(
    ("make_ball", "words"),
    [
        (lambda: KL(-0.1), "KL radius"),
        (lambda: CressieRead(1.0, 0.1), "k = 1 is the KL ball"),
        (lambda: CressieRead(0.5, 0.1), "greater than 1"),
        (lambda: CressieRead(2.0, math.nan), "Cressie-Read radius"),
        (lambda: ChiSquare(-1.0), "chi-square radius"),
        (lambda: TotalVariation(1.2), "at most 1"),
        (lambda: TotalVariation(0.2, v_min=math.inf), "v_min"),
        (lambda: Contamination(-0.2), "contamination radius"),
        (lambda: CVaR(0.0), "alpha"),
        (lambda: CVaR(1.5), "at most 1"),
        (lambda: Wasserstein1(0.1, torch.zeros(2, 3)), "square"),
        (lambda: Wasserstein1(0.1, torch.tensor([[0.0, -1.0], [1.0, 0.0]])), "not negative"),
        (lambda: Wasserstein1(0.1, torch.ones(2, 2)), "diagonal"),
        (lambda: Wasserstein1(0.1, torch.zeros(2, 2)).worst_case(torch.zeros(3)), "2 points for 3 values"),
        (lambda: GradientWasserstein(0.1, norm="l1"), "l2 or linf"),
        (lambda: GradientWasserstein(0.1, torch.tensor([1.0, -1.0])), "none negative"),
    ],
)
def test_wrong_arguments_are_refused(make_ball, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_ball()


# --- First-order Wasserstein --------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_first_order_is_exact_for_linear_values(norm: str) -> None:
    """The best move within the ball, scaled by dimension, by brute force over directions."""
    rng = np.random.default_rng(0)
    slope, scale = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.5, 3.0]).double()
    states = torch.from_numpy(rng.normal(size=(7, 4, 2)))
    found, steepness = GradientWasserstein(0.3, scale, norm).worst_case(lambda s: s @ slope + 1.0, states)
    angle = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)
    moves = torch.stack([angle.cos(), angle.sin()], dim=1)
    if norm == "linf":
        moves = moves / moves.abs().amax(1, keepdim=True)
    least = (0.3 * scale * moves @ slope).min()
    torch.testing.assert_close(found, states @ slope + 1.0 + least, atol=1e-6, rtol=0)
    torch.testing.assert_close(steepness, torch.full((7, 4), -least.item() / 0.3).double(), atol=1e-6, rtol=0)
    assert not found.requires_grad


def test_first_order_error_is_of_second_order() -> None:
    """For V = |s|^2 / 2 the worst case is (|s| - r)^2 / 2: off by r^2 / 2, the curvature's share."""
    states = torch.tensor([[3.0, 4.0], [-1.0, 0.5]], dtype=torch.float64)
    for radius in (0.1, 0.01):
        found, _ = GradientWasserstein(radius).worst_case(lambda s: 0.5 * s.square().sum(-1), states)
        exact = 0.5 * (states.norm(dim=1) - radius) ** 2
        torch.testing.assert_close(
            exact - found, torch.full((2,), 0.5 * radius**2, dtype=torch.float64), atol=1e-12, rtol=0
        )


def test_first_order_acts_on_deterministic_models_and_leaves_the_network_alone() -> None:
    network = MLP([3, 8, 1], torch.Generator().manual_seed(1))
    states = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # as in a target
        found, slope = GradientWasserstein(0.2).worst_case(lambda s: network(s).squeeze(-1), states)
        plain = network(states).squeeze(-1)
    assert (slope > 0.0).all()
    torch.testing.assert_close(found, plain - 0.2 * slope)
    assert all(p.grad is None for p in network.parameters())
    torch.testing.assert_close(GradientWasserstein(0.0).worst_case(lambda s: network(s).squeeze(-1), states)[0], plain)
